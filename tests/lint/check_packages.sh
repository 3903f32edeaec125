#!/bin/sh
# Where packages.sh may not install, or cannot, it names what is missing and ends with status 1.
# usage: check_packages.sh ROOT
set -eu
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "$*"
    exit 1
}
mkdir "$work/user" "$work/root" "$work/bare"
stub() { # FILE SCRIPT
    printf '#!/bin/sh\n%s\n' "$2" >"$work/$1"
    chmod +x "$work/$1"
}
stub user/id 'echo 1000'
stub user/pkg-config 'exit 1' # no module is there
stub root/id 'echo 0'
stub root/pkg-config 'exit 1'
stub root/apt-get 'echo "apt-get $1: no network" >&2; exit 1'
ln -s "$(command -v sh)" "$work/bare/sh"

says() { # PATH WORDS...
    path=$1
    shift
    status=0
    said=$(PATH=$path sh "$root/tests/packages.sh" check@check no-such-program:no-such-package \
        /no/such/file:no-such-data /:not-missing 2>&1) || status=$?
    [ $status = 1 ] || fail "status $status: $said"
    for word; do
        case $said in
        *"$word"*) ;;
        *) fail "'$word' is not said: $said" ;;
        esac
    done
}
says "$work/user:$PATH" libjansson-dev libpcre2-dev libutf8proc-dev zlib1g-dev no-such-package no-such-data
case $said in *not-missing*) fail "a file that is there: $said" ;; esac
says "$work/bare" meson ninja libblis-dev no-such-package 'install what your system calls them'
if command -v apt-get >/dev/null; then
    says "$work/user:$PATH" 'sudo apt-get install'
fi
says "$work/root:$PATH" libjansson-dev libpcre2-dev libutf8proc-dev zlib1g-dev no-such-package \
    'apt-get update: no network' 'sudo apt-get install'
stub root/apt-get '[ "$1" = update ] || { echo "apt-get $1: no such package" >&2; exit 100; }'
says "$work/root:$PATH" 'apt-get install: no such package' no-such-package
echo "packages.sh says what is missing"
