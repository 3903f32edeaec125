#!/bin/sh
# Builds the library as a meson subproject of a host of its own, found by its name, and runs the host's programs. What
# is built stays in WORK, so that only the first run takes long.
# usage: check_subproject.sh ROOT WORK CC CXX
set -eu
root=$1 work=$2 cc=$3 cxx=$4
mkdir -p "$work/host/subprojects"
cp "$root/tests/install/subproject/meson.build" "$root"/tests/install/outside.c* "$work/host"
ln -sfn "$root" "$work/host/subprojects/libpolicygrad"
build=$work/build
if ! [ -f "$build/build.ninja" ]; then
    CC=$cc CXX=$cxx meson setup "$build" "$work/host" --force-fallback-for=policygrad -Ddefault_library=static \
        -Ddebug=false -Doptimization=0 >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
fi
ninja -C "$build" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
meson test -C "$build" --no-rebuild >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
needs() { readelf -d "$build/$1" | grep -c 'NEEDED.*libpolicygrad' || true; }
found=$(needs c_shared)$(needs c_static)$(needs cpp_unasked)
[ "$found" = 100 ] || { echo "shared, static, as default_library=static says: expected 100, found $found"; exit 1; }
# The subproject builds the library and nothing beside it.
! grep -q 'test_params\|bench_gemm\|quickstart' "$build/build.ninja" || { echo "a subproject builds tests"; exit 1; }
echo "a meson subproject: found by its name, shared and static"
