#!/bin/sh
# Installs the build into a new prefix and builds programs outside the tree against it: with pkg-config alone, shared
# and static, with the archive alone or beside the shared library; with CMake through pkg_check_modules, where that is;
# with meson through dependency('policygrad'). Runs them, and leaves nothing.
# usage: check_install.sh ROOT BUILD CC CXX
set -eu
root=$1 build=$2 cc=$3 cxx=$4
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
DESTDIR="$work/staged" meson install -C "$build" --no-rebuild --quiet
pc=$(find "$work/staged" -name policygrad.pc)
[ -n "$pc" ] || { echo "policygrad.pc was not installed"; exit 1; }
prefix=$(sed -n 's/^prefix=//p' "$pc")
place=${pc#"$work/staged$prefix"} # /lib/pkgconfig/policygrad.pc
libdir=${place%/pkgconfig/*}
# Two prefixes as a host finds them: one with both libraries, one with the archive alone.
for name in shared static; do
    cp -R "$work/staged$prefix" "$work/$name"
    sed -i "s|^prefix=.*|prefix=$work/$name|" "$work/$name$place"
done
rm "$work/static$libdir"/libpolicygrad.so*

model=$root/examples/embedded/model
cd "$work"
n=0
while read -r linked standard source arguments; do
    case $standard in
    c++*) compiler=$cxx ;;
    *) compiler=$cc ;;
    esac
    folder=$work/${linked%%-*}
    export PKG_CONFIG_PATH="$folder$libdir/pkgconfig"
    case $linked in
    shared) libraries=$(pkg-config --libs policygrad) ;;
    static) libraries=$(pkg-config --static --libs policygrad) ;;
    shared-static) libraries=$(pkg-config --static --libs policygrad | sed s/-lpolicygrad/-l:libpolicygrad.a/) ;;
    esac
    # shellcheck disable=SC2046,SC2086
    $compiler -std=$standard -O1 -Wall -Wextra -Werror '-DEXAMPLE_MODEL=""' $(pkg-config --cflags policygrad) \
        "$root/$source" -o program $libraries
    # shellcheck disable=SC2086
    LD_LIBRARY_PATH=$folder$libdir ./program $arguments </dev/null >log 2>&1 ||
        { cat log; echo "$source, $linked: failed"; exit 1; }
    needs=$(readelf -d program | grep -c 'NEEDED.*libpolicygrad' || true)
    [ "$linked $needs" = 'shared 1' ] || [ "${linked##*-} $needs" = 'static 0' ] ||
        { echo "$source, $linked: needs $needs shared libpolicygrad"; exit 1; }
    n=$((n + 1))
done <<END
shared c99   tests/install/outside.c
shared c++11 tests/install/outside.cpp
static c99   tests/install/outside.c
static c++11 tests/install/outside.cpp
shared-static c99 tests/install/outside.c
shared c++11 tests/api/test_cpp.cpp $model
static c11   examples/policy_gradient.c $model 2
END

cmake=
if command -v cmake >/dev/null; then
    export PKG_CONFIG_PATH="$work/shared$libdir/pkgconfig"
    { CC=$cc CXX=$cxx cmake -S "$root/tests/install/cmake" -B made && cmake --build made &&
        made/outside_c && made/outside_cpp; } >log 2>&1 || { cat log; exit 1; }
    cmake='; two by CMake'
else
    echo 'skipped: no CMake here'
fi

mkdir host
cp "$root/tests/install/installed/meson.build" "$root"/tests/install/outside.c* host
export PKG_CONFIG_PATH="$work/shared$libdir/pkgconfig"
ways='shared-1 static-0'
case $(pkg-config --static --libs policygrad) in
*-lblis*) # -Dblis=shared: meson would take BLIS's archive too
    ways=shared-1
    sed -i /static/d host/meson.build ;;
esac
{ CC=$cc CXX=$cxx meson setup host/build host && LD_LIBRARY_PATH=$work/shared$libdir meson test -C host/build; } \
    >log 2>&1 || { cat log; exit 1; }
for linked in $ways; do
    needs=$(readelf -d "host/build/c_${linked%-*}" | grep -c 'NEEDED.*libpolicygrad' || true)
    [ "$needs" = "${linked#*-}" ] || { echo "meson, ${linked%-*}: needs $needs shared libpolicygrad"; exit 1; }
done
echo "installed: $n programs outside the tree build by pkg-config and run; by meson ${ways}$cmake"
