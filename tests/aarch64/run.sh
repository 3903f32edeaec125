#!/bin/sh
# Builds for aarch64 on another machine and runs the test programs under QEMU's user mode. Not part of tests/run.sh.
#
#   sh tests/aarch64/run.sh [TEST...]      in build-aarch64/, all C and C++ tests by default
#
# Needs Debian's cross compiler and QEMU (installed here, as root) and the libraries of that architecture, which are
# unpacked into build-aarch64-root/: neither dpkg nor APT of this machine learns of another architecture.
set -eu
cd "$(dirname "$0")/../.."
build=${BUILD:-$PWD/build-aarch64}
sysroot=$build-root

sh tests/packages.sh aarch64-linux-gnu-gcc:gcc-aarch64-linux-gnu aarch64-linux-gnu-g++:g++-aarch64-linux-gnu \
    qemu-aarch64-static:qemu-user-static python3:python3
if ! [ -f "$sysroot/complete" ]; then
    echo "fetching the libraries into $sysroot"
    mkdir -p "$sysroot/apt/lists/partial" "$sysroot/apt/archives/partial"
    : >"$sysroot/apt/status" # nothing is installed: every package that is needed is fetched
    apt() {
        apt-get -qq -o APT::Architecture=arm64 -o APT::Architectures=arm64 -o Dir::State::status="$sysroot/apt/status" \
            -o Dir::State::Lists="$sysroot/apt/lists" -o Dir::Cache::Archives="$sysroot/apt/archives" \
            -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= -o Debug::NoLocking=1 "$@"
    }
    apt update
    apt install --yes --no-install-recommends --download-only libc6-dev libstdc++-12-dev libjansson-dev libpcre2-dev \
        libutf8proc-dev zlib1g-dev libblis-dev check
    for package in "$sysroot"/apt/archives/*.deb; do
        dpkg-deb -x "$package" "$sysroot"
    done
    # What their installation would have linked.
    libraries=$sysroot/usr/lib/aarch64-linux-gnu
    [ -e "$libraries/libblis.a" ] || ln -s "$(cd "$libraries" && ls -d blis-*/libblis.a | head -n 1)" "$libraries/libblis.a"
    rm -rf "$sysroot/apt"
    : >"$sysroot/complete"
fi

if ! [ -f "$build/build.ninja" ]; then
    sed "s|@SYSROOT@|$sysroot|" tests/aarch64/cross.ini.in >"$sysroot/cross.ini"
    meson setup "$build" --cross-file "$sysroot/cross.ini" -Dbench=false -Dexamples=false ${MESON_ARGS:-} >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
fi
ninja -C "$build" --quiet
export PGRAD_TEST_MODELS="${PGRAD_TEST_MODELS:-$PWD/.models}" PGRAD_TEST_SHORT=1
export CK_TIMEOUT_MULTIPLIER=20 # Check has limits of its own
meson test -C "$build" --no-rebuild --print-errorlogs --timeout-multiplier 20 "$@"
