#!/bin/sh
# Installs the build into a new prefix and builds programs outside the tree against it, with pkg-config alone: a C and
# a C++ program, shared and then static; the tests of the C++ wrapper and the textbook program, which so see what a user
# sees; a CMake project. Leaves nothing.
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
# shellcheck disable=SC2046
{
    $cxx -std=c++11 $(pkg-config "$flags" --cflags policygrad) "$root/tests/api/test_cpp.cpp" -o cpp-tests \
        $(pkg-config "$flags" --libs policygrad)
    $cc -std=c11 -Wall -Wextra -Werror -DEXAMPLE_MODEL=\"\" $(pkg-config "$flags" --cflags policygrad) \
        "$root/examples/policy_gradient.c" -o policy_gradient $(pkg-config "$flags" --libs policygrad)
}
LD_LIBRARY_PATH=$libdir ./cpp-tests "$root/examples/embedded/model"
LD_LIBRARY_PATH=$libdir ./policy_gradient "$root/examples/embedded/model" 2
LD_LIBRARY_PATH=$libdir ./c-shared
LD_LIBRARY_PATH=$libdir ./cpp-shared
./c-static
readelf -d c-static | grep -q policygrad && { echo "the static program needs the shared library"; exit 1; }

# CMake asks pkg-config itself; the prefix that is not where the files are goes in as the system's root.
if command -v cmake >/dev/null 2>&1; then
    mkdir cmake
    cp "$root/tests/install/outside.c" cmake/
    cat >cmake/CMakeLists.txt <<'CMAKE'
cmake_minimum_required(VERSION 3.18)
project(outside C)
find_package(PkgConfig REQUIRED)
pkg_check_modules(policygrad REQUIRED IMPORTED_TARGET policygrad)
add_executable(outside outside.c)
target_link_libraries(outside PkgConfig::policygrad)
CMAKE
    PKG_CONFIG_SYSROOT_DIR=$work/root cmake -S cmake -B cmake/build -DCMAKE_C_COMPILER="$cc" >cmake.log 2>&1 &&
        PKG_CONFIG_SYSROOT_DIR=$work/root cmake --build cmake/build >>cmake.log 2>&1 ||
        { cat cmake.log; exit 1; }
    LD_LIBRARY_PATH=$libdir cmake/build/outside
    cmake=", a CMake project too"
else
    cmake="; no cmake here, its project was not tried"
fi
echo "installed: C and C++ programs outside the tree build and run$cmake"
