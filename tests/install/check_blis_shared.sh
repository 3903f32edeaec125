#!/bin/sh
# -Dblis=shared: builds the library in a new folder, installs it, builds the programs outside the tree against it,
# and runs the exact product tests with the micro-kernel that BLIS chose, and with others where this CPU can run
# them: BLIS reads the number of one from BLIS_ARCH_TYPE. Leaves nothing. Status 77: no shared BLIS here.
# usage: check_blis_shared.sh ROOT CC CXX
set -eu
root=$1 cc=$2 cxx=$3
library=$($cc -print-file-name=libblis.so)
if ! [ -f "$library" ] || ! echo '#include <blis.h>' | $cc -E - >/dev/null 2>&1; then
    echo "skipped: no libblis.so and blis.h (libblis-dev)"
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
build=$work/build
CC=$cc CXX=$cxx meson setup "$build" "$root" -Dblis=shared -Dexamples=false -Dbench=false -Ddebug=false >"$work/log" 2>&1 ||
    { cat "$work/log"; exit 1; }
shared=lib/libpolicygrad.so.$(sh "$root/lib/version.sh" soversion)
ninja -C "$build" $shared lib/libpolicygrad.a tests/test_blis tests/test_exact_product >"$work/log" 2>&1 ||
    { cat "$work/log"; exit 1; }
python3 "$root/tests/abi/symbols.py" --blis shared "$root" "$build/$shared" "$build/lib/libpolicygrad.a"
sh "$root/tests/install/check_install.sh" "$root" "$build" "$cc" "$cxx"

export PGRAD_TEST_SHORT=1
tried=
exact_with() { # BLIS's own choice, or NUMBER of another one
    if ! ${1:+env BLIS_ARCH_TYPE=$1} "$build/tests/test_blis" >"$work/log" 2>&1; then
        grep -q 'libblis: Aborting' "$work/log" && [ -n "$1" ] && return 0 # a BLIS built without it
        cat "$work/log"
        exit 1
    fi
    set=$(sed -n 's/^kernel set //p' "$work/log")
    echo "BLIS_ARCH_TYPE ${1:-unset}: kernel set $set"
    case " $tried " in
    *" $set "*) return 0 ;;
    esac
    tried="$tried $set"
    [ "$set" != generic ] || return 0 # plain C, the same in every build
    ${1:+env BLIS_ARCH_TYPE=$1} "$build/tests/test_exact_product" >"$work/log" 2>&1 || { cat "$work/log"; exit 1; }
}
exact_with ''
# A choice that this CPU cannot run must not be taken. A 32 x 12 kernel, a 6 x 16 one, and a shape of no set.
if [ "$(uname -m)" = x86_64 ]; then
    printf '%s\n' '#include <blis.h>' '#include <stdio.h>' \
        'int main(void) { printf("%d %d %d\n", BLIS_ARCH_SKX, BLIS_ARCH_HASWELL, BLIS_ARCH_PENRYN); }' >"$work/id.c"
    $cc "$work/id.c" -o "$work/id" -lblis -lm
    for number in $("$work/id"); do
        exact_with "$number"
    done
fi
