#!/bin/sh
# Makes the API reference out of the public headers; any warning is a failure. Status 77: there is no doxygen here.
# usage: run_doxygen.sh [FOLDER]      without FOLDER nothing is left
set -eu
case ${1:-/} in
/*) out=${1:-} ;;
*) out=$PWD/$1 ;;
esac
cd "$(dirname "$0")/../.."
if ! command -v doxygen >/dev/null 2>&1; then
    echo "skipped: no doxygen, so the API reference was not made (sh tests/packages.sh doxygen:doxygen)" >&2
    exit 77
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
out=${out:-$work/api}
mkdir -p "$out"
{ cat docs/Doxyfile && echo "OUTPUT_DIRECTORY = $out"; } | doxygen - 2>"$work/warnings" || status=$?
if [ -s "$work/warnings" ] || [ "${status:-0}" != 0 ]; then
    cat "$work/warnings"
    exit 1
fi
# Every function of the version map is there with a section of its own.
cat "$out"/html/*_8h.html >"$work/pages"
for symbol in $(sed -n 's/^ *\(pgrad_[a-z0-9_]*\);$/\1/p' lib/policygrad.map); do
    grep -q "</span>$symbol()</h2>" "$work/pages" || { echo "$symbol is not in the reference"; exit 1; }
done
echo "the API reference: no warning, every function of the map is in it"
