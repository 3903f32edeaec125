#!/bin/sh
# Benchmarks: builds if needed and prints one JSON object a line - name, value, unit, limit, share, cpu, kernel_set.
#
#   sh tests/bench/run.sh                         all but curves, which takes minutes
#   sh tests/bench/run.sh gemm load               some programs: all that they measure
#   sh tests/bench/run.sh gemm_packed allocations some figures
#
# limit is measured in the same run where there is one: the best rate of BLIS's own sgemm over its kernel sets
# (gemm, train, head), a plain reading of memory (bandwidth), the packed products alone (decode), the f32 cache
# (decode_b32_kv_*), the same without drafts (speculate), the step (sampler_share), the bandwidth of a plain loop
# (optimizer), the same task with everything in f32 (curves), the figure to reach (shared_prefix_step), the figure
# to stay under (load, step_rss, step_predicted, checkpoint_delay, size, open).
# Status 1: a program failed. Status 2: a name is unknown.
set -eu
cd "$(dirname "$0")/../.."

# One row a program: how it is called here, then the figures in it that may be asked for. A row has a function
# run_PROGRAM below.
programs='
gemm   gemm_packed
bandwidth read_bandwidth rows1_f32_gpt2 rows1_bf16_gpt2 rows1_q8_0_gpt2 decode_b1_f32 decode_b1_bf16 decode_b1_q8_0
decode decode_b32 decode_b64 decode_b32_kv_f16 decode_b32_kv_bf16 sampler_share allocations
speculate decode_speculative
train  train_step train_step_recompute train_step_bf16 step_predicted allocations
sharing shared_prefix_generate shared_prefix_backward shared_prefix_step
kept   kept_generate kept_backward kept_step kept_token
threads threads_generate threads_backward threads_optimizer contexts_together contexts_fair threads_idle
optimizer optimizer_step_f32 optimizer_step_bf16 optimizer_step_q8 optimizer_step_bf16_weights_bf16
head   head_step_32768 head_step_131072 head_step_262144 head_step_1048576
load   load step_rss
memory step_rss_default step_rss_recompute step_rss_in_backward step_rss_both estimate_default estimate_recompute estimate_in_backward estimate_both attention_scratch_1024 attention_scratch_8192
checkpoint checkpoint_delay checkpoint_write checkpoint_open checkpoint_size
size   size
open   open
curves curve_f32 curve_weights_bf16 curve_moments_bf16 curve_moments_q8 curve_kv_f16 curve_kv_bf16 curve_all_narrow
'

chosen=
for name in "$@"; do
    rows=$(echo "$programs" | awk -v name="$name" '{ for (i = 1; i <= NF; i++) if ($i == name) { print $1; next } }')
    if [ -z "$rows" ]; then
        echo "unknown name: $name. Programs, and the figures in them:$programs" >&2
        exit 2
    fi
    chosen="$chosen $rows"
done
wanted() {
    if [ -z "$chosen" ]; then
        [ "$1" != curves ] # minutes: only where it is asked for
    else
        case " $(echo $chosen) " in *" $1 "*) ;; *) return 1 ;; esac
    fi
}

sh tests/packages.sh python3:python3
build=${BUILD:-build}
if [ ! -f "$build/build.ninja" ]; then
    # shellcheck disable=SC2086
    meson setup "$build" -Dtests=false ${MESON_ARGS:-} >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
elif ! grep -q tests/bench/bench_load "$build/build.ninja"; then # the quickstart's build has none
    meson configure "$build" -Dbench=true >/dev/null
fi
ninja -C "$build" --quiet >&2
bench=$build/tests/bench
model=${PGRAD_TEST_MODELS:-$PWD/.models}/smollm2.gguf
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$bench/bench_load" >"$work/machine" # a line with this machine's cpu and kernel_set
report() { python3 tests/bench/report.py "$work" "$@"; }

# The peak: the best of the kernel sets that this machine's BLIS can be told to use.
run_peak() {
    [ -x "$bench/bench_blis" ] || {
        echo '{"name":"bli_sgemm","skipped":"no libblis to link: gemm_packed and train_step have no limit"}'
        return
    }
    for set in haswell zen2 zen3 skx; do
        case $set in
        skx) grep -q avx512f /proc/cpuinfo || continue ;;
        esac
        rate=$(BLIS_ARCH_TYPE=$set BLIS_NUM_THREADS=2 OMP_NUM_THREADS=2 "$bench/bench_blis" 2>/dev/null) || continue
        printf '{"name":"bli_sgemm_%s","value":%s,"unit":"GFLOP/s","kernel_set":"%s"}\n' "$set" "$rate" "$set"
        echo "$rate" >>"$work/rates"
    done
}

run_gemm() { "$bench/bench_gemm"; }

run_bandwidth() { "$bench/bench_bandwidth"; }

run_decode() { "$bench/bench_decode"; }

run_speculate() {
    if [ -f "$model" ]; then
        "$bench/bench_speculate" "$model" 2>"$work/drafts"
    else
        echo "{\"name\":\"decode_speculative\",\"skipped\":\"no $model: sh tests/fetch_models.sh\"}"
    fi
}

run_train() { "$bench/bench_train"; }

run_sharing() { "$bench/bench_sharing"; }

run_threads() { "$bench/bench_threads"; }

run_optimizer() { "$bench/bench_optimizer"; }

run_checkpoint() { "$bench/bench_checkpoint" "$work"; }

run_head() { "$bench/bench_head"; }

run_load() {
    if [ -f "$model" ]; then
        "$bench/bench_load" "$model"
    else
        for name in load step_rss; do
            echo "{\"name\":\"$name\",\"skipped\":\"no $model: sh tests/fetch_models.sh\"}"
        done
    fi
}

run_memory() {
    for mode in default recompute in_backward both; do
        if [ -f "$model" ]; then
            "$bench/bench_memory" "$model" "$mode" || return
        else
            echo "{\"name\":\"step_rss_$mode\",\"skipped\":\"no $model: sh tests/fetch_models.sh\"}"
        fi
    done
}

run_kept() {
    if [ -f "$model" ]; then
        "$bench/bench_kept" "$model"
    else
        echo "{\"name\":\"kept_step\",\"skipped\":\"no $model: sh tests/fetch_models.sh\"}"
    fi
}

footprint() { python3 tests/abi/footprint.py "$build/lib/libpolicygrad.so" "$1"; }

run_size() { footprint size; }

run_open() { footprint open; }

# The plot and all points stay in the build folder.
run_curves() {
    python3 tests/bench/curves.py "$build/lib/libpolicygrad.so" --svg "$build/curves.svg" --json "$build/curves.json"
}

status=0
run() { # PROGRAM, names asked for
    program=$1
    shift
    { "run_$program" || echo "{\"name\":\"$program\",\"error\":\"the program failed\"}"; } |
        report "$program" "$@" || status=1
}

if wanted gemm || wanted train || wanted head; then
    run peak
    PGRAD_BENCH_PEAK=$(sort -n "$work/rates" 2>/dev/null | tail -n 1)
    export PGRAD_BENCH_PEAK="${PGRAD_BENCH_PEAK:-0}"
fi
for program in $(echo "$programs" | awk '{ print $1 }'); do
    if wanted "$program"; then
        run "$program" "$@"
    fi
done
report allocations || status=1
exit $status
