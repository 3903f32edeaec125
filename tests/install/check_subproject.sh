#!/bin/sh
# The tree as a meson subproject of another project, as README has it: built without optimisation, linked shared and
# static, run. Leaves nothing.
# usage: check_subproject.sh ROOT CC
set -eu
root=$1 cc=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/host/subprojects"
ln -s "$root" "$work/host/subprojects/libpolicygrad"
cp "$root/tests/install/outside.c" "$work/host/"
cat >"$work/host/meson.build" <<'MESON'
project('host', 'c', default_options: ['optimization=0', 'debug=false'])
shared = dependency('policygrad', fallback: 'libpolicygrad')
static = dependency('policygrad', fallback: 'libpolicygrad', static: true)
executable('outside', 'outside.c', dependencies: shared)
executable('outside_static', 'outside.c', dependencies: static)
MESON
# An installed library must not be taken for the subproject's.
CC=$cc meson setup "$work/build" "$work/host" --force-fallback-for=policygrad -Dlibpolicygrad:tests=false \
    -Dlibpolicygrad:examples=false -Dlibpolicygrad:bench=false >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
ninja -C "$work/build" outside outside_static >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
"$work/build/outside"
"$work/build/outside_static"
readelf -d "$work/build/outside_static" | grep -q policygrad && { echo "the static program needs the shared library"; exit 1; }
echo "a host project builds the library as its subproject"
