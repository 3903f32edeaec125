#!/bin/sh
# Installs the build into a new prefix and builds a C and a C++ program outside the tree against it, with
# pkg-config alone: shared, then static. Leaves nothing.
# usage: check_install.sh ROOT BUILD CC CXX
set -eu
root=$1 build=$2 cc=$3 cxx=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
DESTDIR="$work/root" meson install -C "$build" --no-rebuild --quiet
pc=$(find "$work/root" -name policygrad.pc)
[ -n "$pc" ] || { echo "policygrad.pc was not installed"; exit 1; }
export PKG_CONFIG_PATH="${pc%/*}"
flags="--define-variable=prefix=$work/root$(pkg-config --variable=prefix policygrad)"
libdir=$(pkg-config "$flags" --variable=libdir policygrad)
cd "$work"
# shellcheck disable=SC2046
{
    $cc -std=c99 -Wall -Wextra -Werror $(pkg-config "$flags" --cflags policygrad) \
        "$root/tests/install/outside.c" -o c-shared $(pkg-config "$flags" --libs policygrad)
    $cxx -std=c++11 -Wall -Wextra -Werror $(pkg-config "$flags" --cflags policygrad) \
        "$root/tests/install/outside.cpp" -o cpp-shared $(pkg-config "$flags" --libs policygrad)
    mkdir static && cp "$libdir/libpolicygrad.a" static/
    $cc -std=c99 -Wall -Wextra -Werror $(pkg-config "$flags" --cflags policygrad) \
        "$root/tests/install/outside.c" -o c-static -Lstatic $(pkg-config "$flags" --static --libs policygrad |
        sed "s|-L$libdir||g")
}
LD_LIBRARY_PATH=$libdir ./c-shared
LD_LIBRARY_PATH=$libdir ./cpp-shared
./c-static
readelf -d c-static | grep -q policygrad && { echo "the static program needs the shared library"; exit 1; }
echo "installed: C and C++ programs outside the tree build and run"
