#!/bin/sh
# Installs the packages that building and testing need, where they are missing. Used by
# examples/quickstart.sh, tests/run.sh and .ci/run. Arguments: more packages ("PROGRAM:PACKAGE" or
# "MODULE@PACKAGE" for a pkg-config module, "/FILE:PACKAGE").
#
# Status 0: everything is there. Status 1: something is missing and could not be installed; what to
# install was printed.
set -u

needed='cc:gcc meson:meson ninja:ninja-build pkg-config:pkg-config ar:binutils
jansson@libjansson-dev libpcre2-8@libpcre2-dev libutf8proc@libutf8proc-dev
zlib@zlib1g-dev'

have() {
    case $1 in
    /*:*) [ -e "${1%%:*}" ] ;;
    *:*) command -v "${1%%:*}" >/dev/null 2>&1 ;;
    *@*) command -v pkg-config >/dev/null 2>&1 && pkg-config --exists "${1%%@*}" ;;
    esac
}
have_blis() { # wherever the compiler looks
    case ${MESON_ARGS:-} in
    *blis=shared*) file=$(cc -print-file-name=libblis.so 2>/dev/null) ;;
    *) file=$(cc -print-file-name=libblis.a 2>/dev/null) ;;
    esac
    [ -f "$file" ]
}

missing=
for item in $needed "$@"; do
    have "$item" || missing="$missing ${item#*[:@]}"
done
have_blis || missing="$missing libblis-dev"
[ -n "$missing" ] || exit 0
missing=${missing# }

say_and_stop() {
    echo "These packages are missing: $missing" >&2
    if command -v apt-get >/dev/null 2>&1; then
        echo "Install them with: sudo apt-get install $missing" >&2
    else
        echo "These are their names on Debian; install what your system calls them:" >&2
        echo "a C compiler, binutils, meson (1.0.1 or newer), ninja, pkg-config, and the development files of" >&2
        echo "BLIS (with its static archive libblis.a; without it version 0.9, MESON_ARGS=-Dblis=shared)," >&2
        echo "jansson, PCRE2 (8 bit), utf8proc, zlib; for the tests also Check, a C++ compiler, Python 3; for the" >&2
        echo "quickstart's PNG rsvg-convert (librsvg)." >&2
    fi
    exit 1
}

command -v apt-get >/dev/null 2>&1 || say_and_stop
if [ "$(id -u)" != 0 ]; then
    say_and_stop
fi
echo "installing: $missing"
log=$(mktemp)
export DEBIAN_FRONTEND=noninteractive
# shellcheck disable=SC2086
if ! { apt-get update -qq && apt-get install -y -qq --no-install-recommends $missing; } >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -f "$log"
    say_and_stop
fi
rm -f "$log"
