#!/bin/sh
# Searches with libFuzzer, under address and undefined-behaviour sanitizers.
#
#   sh tests/fuzz/run.sh SECONDS [TARGET...]      each of safetensors, gguf, config, tokenizer
#
# Inputs found so far stay in build-fuzz/corpus and are built upon; one that fails is left in build-fuzz, named
# TARGET-crash-*, -timeout-* or -oom-*, for: build-fuzz/tests/fuzz/fuzz_TARGET FILE.
set -eu
cd "$(dirname "$0")/../.."
seconds=${1:?seconds for each target}
shift
sh tests/packages.sh check@check clang:clang python3:python3
[ $# -gt 0 ] || set -- safetensors gguf config tokenizer
build=${BUILD:-build-fuzz}
if [ ! -f "$build/build.ninja" ]; then
    CC=clang CXX=clang++ meson setup "$build" -Dfuzz=true -Dbench=false -Dexamples=false -Db_lundef=false \
        -Db_sanitize=address,undefined >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
fi
programs=
for target; do programs="$programs tests/fuzz/fuzz_$target"; done
# shellcheck disable=SC2086
ninja -C "$build" --quiet $programs tests/fuzz/corpus
cd "$build"
for target; do
    mkdir -p "corpus/$target"
    ASAN_OPTIONS=allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
        "tests/fuzz/fuzz_$target" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=1024 -max_len=65536 \
        -dict="tests/fuzz/corpus/$target.dict" -print_final_stats=1 -artifact_prefix="$target-" \
        "corpus/$target" "tests/fuzz/corpus/$target" >"fuzz_$target.log" 2>&1 ||
        { tail -n 60 "fuzz_$target.log"; exit 1; }
    echo "fuzz_$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "fuzz_$target.log") inputs, no failure"
done
