#!/bin/sh
# The tests of what reads files and texts, under valgrind: reads of what was never written, and leaks.
#
#   sh tests/valgrind.sh [TEST...]
set -eu
cd "$(dirname "$0")/.."
sh tests/packages.sh check@check valgrind:valgrind
[ $# -gt 0 ] || set -- append checkpoint_file dequant file gguf gguf_tensors json safetensors safetensors_shards \
    safetensors_write tensor_file chat tokenizer tokenizer_folder tokenizer_gguf config config_gguf bad_files
build=${BUILD:-build}
if [ ! -f "$build/build.ninja" ]; then
    meson setup "$build" >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
fi
programs=
for test; do programs="$programs tests/test_$test"; done
# shellcheck disable=SC2086
ninja -C "$build" --quiet $programs
export CK_FORK=no PGRAD_TEST_SHORT=1
for test; do
    leaks=full
    [ "$test" != checkpoint_file ] || leaks=no # its children end in the middle
    valgrind --quiet --error-exitcode=9 --leak-check=$leaks --errors-for-leak-kinds=definite,indirect \
        "$build/tests/test_$test" >"$build/valgrind.log" 2>&1 || { cat "$build/valgrind.log"; echo "test_$test: failed"; exit 1; }
    echo "test_$test: $(grep -m 1 '%' "$build/valgrind.log")"
done
