#!/bin/sh
# Where packages.sh may not install, it names what is missing and ends with status 1.
# usage: check_packages.sh ROOT
set -eu
root=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "$*"
    exit 1
}
mkdir "$work/user" "$work/bare"
printf '#!/bin/sh\necho 1000\n' >"$work/user/id"
printf '#!/bin/sh\nexit 1\n' >"$work/user/pkg-config" # no module is there
chmod +x "$work/user/id" "$work/user/pkg-config"
ln -s "$(command -v sh)" "$work/bare/sh"

says() { # PATH WORDS...
    path=$1
    shift
    status=0
    said=$(PATH=$path sh "$root/tests/packages.sh" check@check no-such-program:no-such-package 2>&1) || status=$?
    [ $status = 1 ] || fail "status $status: $said"
    for word; do
        case $said in
        *"$word"*) ;;
        *) fail "'$word' is not said: $said" ;;
        esac
    done
}
says "$work/user:$PATH" libjansson-dev libpcre2-dev libutf8proc-dev zlib1g-dev no-such-package
says "$work/bare" meson ninja libblis-dev no-such-package 'install what your system calls them'
if command -v apt-get >/dev/null; then
    says "$work/user:$PATH" 'sudo apt-get install'
fi
echo "packages.sh says what is missing"
