#!/bin/sh
# Whether lib/ compiles for aarch64, as far as a machine of another kind can say: the cross compiler reads every source,
# warnings are errors. Debian's finds the headers of jansson, PCRE2, utf8proc and zlib where the native one does, and
# they are the same for both.
#
#   sh tests/aarch64.sh             installs gcc-aarch64-linux-gnu where it is missing
set -eu
cd "$(dirname "$0")/.."

cc=aarch64-linux-gnu-gcc
sh tests/packages.sh $cc:gcc-aarch64-linux-gnu
echo '#include <stdio.h>' | $cc -E - >/dev/null 2>&1 ||
    apt-get install -y -qq --no-install-recommends libc6-dev-arm64-cross >/dev/null

check() { # ARGUMENTS...
    $cc -fsyntax-only -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wshadow -Wconversion -Wstrict-prototypes \
        -Wmissing-prototypes -Wvla -Werror -ffp-contract=off -Iinclude -Ilib "$@"
}
n=0
for source in lib/*/*.c; do
    case $source in
    lib/kernel/vec_*) sets='generic armv8a' ;; # the vector code is compiled once per kernel set
    *) sets=none ;;
    esac
    for set in $sets; do
        check -DPGRAD__SET="$set" "$source" || exit
        n=$((n + 1))
    done
done
echo "aarch64: $n compilations without a warning"
