#!/bin/sh
# libpolicygrad and its peers side by side: installs the peers, builds ours, measures, writes report.json, report.md
# and SVG plots.
#
#   sh tests/bench/peers/run.sh                                everything, five rounds: hours
#   sh tests/bench/peers/run.sh --cases A,B --rounds 1 --out DIR
#
# Options go to peers.py (--help there). PEERS_VENV: a Python environment that has the peers already; nothing is then
# installed. PEERS: where the peers and the exported weights live, .peers in this tree. BUILD: as for tests/bench/run.sh.
set -eu
cd "$(dirname "$0")/../../.."
here=tests/bench/peers
peers=${PEERS:-$PWD/.peers}
model=${PGRAD_TEST_MODELS:-$PWD/.models}/smollm2.gguf

sh tests/packages.sh python3:python3 taskset:util-linux
build=${BUILD:-build}
if [ ! -f "$build/build.ninja" ]; then
    meson setup "$build" >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
fi
ninja -C "$build" --quiet
[ -f "$model" ] || sh tests/fetch_models.sh
[ -f "$model" ] || { echo "no $model: sh tests/fetch_models.sh" >&2; exit 1; }
mkdir -p "$peers/data"

venv=${PEERS_VENV:-$peers/venv}
python=$venv/bin/python
if [ -z "${PEERS_VENV:-}" ]; then
    [ -x "$python" ] || python3 -m venv "$venv"
    if ! cmp -s "$here/requirements.txt" "$venv/installed.txt"; then
        "$python" -m pip install --quiet -r "$here/requirements.txt"
        cp "$here/requirements.txt" "$venv/installed.txt"
    fi
    # Built from its source here, for this CPU: minutes. torch.compile wants a C++ compiler too.
    if ! "$python" -c 'import llama_cpp' 2>/dev/null; then
        sh tests/packages.sh cmake:cmake c++:g++
        echo "building llama.cpp ($(grep -v '^#' "$here/llama.txt"))"
        CMAKE_BUILD_PARALLEL_LEVEL=$(nproc) CMAKE_ARGS="-DGGML_NATIVE=ON -DMTMD_BUILD=OFF -DCMAKE_BUILD_TYPE=Release" \
            "$python" -m pip install --quiet --no-binary llama-cpp-python -r "$here/llama.txt" >"$peers/llama.log" 2>&1 ||
            echo "llama-cpp-python does not build here ($peers/llama.log): its lines will say failed" >&2
    fi
fi

# The weights, written again when the library or the model is newer than them.
POLICYGRAD_LIBRARY=$(cd "$build" && pwd)/lib/libpolicygrad.so
export POLICYGRAD_LIBRARY
if [ ! -f "$peers/data/smollm2-q8_0.gguf" ] || [ "$model" -nt "$peers/data/smollm2-q8_0.gguf" ] ||
    [ "$here/prepare.py" -nt "$peers/data/smollm2-q8_0.gguf" ]; then
    python3 "$here/prepare.py" folder "$model" "$peers/data"
    "$python" "$here/prepare.py" gguf "$model" "$peers/data"
fi

exec python3 "$here/peers.py" --build "$(cd "$build" && pwd)" --venv "$venv" --data "$peers/data" "$@"
