#!/bin/sh
# Benchmarks: builds if needed and prints one JSON object a line - name, value, unit, limit, share, cpu, kernel set.
#
#   sh tests/bench/run.sh            all
#   sh tests/bench/run.sh gemm load  some of: gemm decode train load size open
#
# limit is measured in the same run where there is one: the best rate of BLIS's own sgemm over its kernel sets
# (gemm, train), the packed products alone (decode), the figure to stay under (load, step_rss, size, open).
set -eu
cd "$(dirname "$0")/../.."
sh tests/packages.sh python3:python3
build=${BUILD:-build}
if [ ! -f "$build/build.ninja" ]; then
    meson setup "$build" >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
fi
ninja -C "$build" --quiet
bench=$build/tests/bench
names=${*:-gemm decode train load size open}
model=${PGRAD_TEST_MODELS:-$PWD/.models}/smollm2.gguf

wanted() { case " $names " in *" $1 "*) return 0 ;; esac; return 1; }

# The peak: the best of the kernel sets that this machine's BLIS can be told to use.
peak=0
if { wanted gemm || wanted train; } && [ -x "$bench/bench_blis" ]; then
    for set in haswell zen2 zen3 skx; do
        case $set in
        skx) grep -q avx512f /proc/cpuinfo || continue ;;
        esac
        rate=$(BLIS_ARCH_TYPE=$set BLIS_NUM_THREADS=2 OMP_NUM_THREADS=2 "$bench/bench_blis" 2>/dev/null) || continue
        printf '{"name":"bli_sgemm_%s","value":%s,"unit":"GFLOP/s"}\n' "$set" "$rate"
        peak=$(python3 -c "print(max($peak, $rate))")
    done
fi
export PGRAD_BENCH_PEAK="$peak"

wanted gemm && "$bench/bench_gemm"
wanted decode && "$bench/bench_decode"
wanted train && "$bench/bench_train"
if wanted load; then
    if [ -f "$model" ]; then
        "$bench/bench_load" "$model"
    else
        echo "{\"name\":\"load\",\"skipped\":\"no $model: sh tests/fetch_models.sh\"}"
    fi
fi
if wanted size; then
    stripped=$(mktemp)
    strip -o "$stripped" "$(readlink -f "$build/lib/libpolicygrad.so")"
    bytes=$(wc -c <"$stripped")
    rm -f "$stripped"
    python3 -c "print('{\"name\":\"size\",\"value\":%d,\"unit\":\"bytes\",\"limit\":1000000,\"share\":%.3f}' % ($bytes, $bytes / 1e6))"
fi
if wanted open; then
    python3 - "$build/lib/libpolicygrad.so" <<'PY'
import ctypes, subprocess, sys, time
code = ("import ctypes,sys,time\nstart=time.perf_counter()\nlibrary=ctypes.CDLL(sys.argv[1])\n"
        "context=ctypes.c_void_p()\nassert library.pgrad_context_create(None, ctypes.byref(context))==0\n"
        "print((time.perf_counter()-start)*1e3)")
times = sorted(float(subprocess.run([sys.executable, "-c", code, sys.argv[1]], capture_output=True, text=True,
                                    check=True).stdout) for _ in range(9))
print('{"name":"open","value":%.3f,"unit":"ms","limit":20,"share":%.3f}' % (times[4], times[4] / 20))
PY
fi
