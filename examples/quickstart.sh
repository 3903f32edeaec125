#!/bin/sh
# Installs what is missing, builds, and teaches a language model something you can see.
#
#   sh examples/quickstart.sh                   the embedded model; under a minute after the build
#   sh examples/quickstart.sh --model PATH      a GGUF file or a Hugging Face folder
#   sh examples/quickstart.sh --steps N         another number of steps
#
# Leaves quickstart-out/: metrics.jsonl, reward.svg, reward.png and the trained model.
set -eu
arguments=
for argument in "$@"; do # a model's path is meant from where the user stands
    case $argument in
    --*) ;;
    *) [ -e "$argument" ] && argument=$(cd "$(dirname "$argument")" && pwd)/$(basename "$argument") ;;
    esac
    arguments="$arguments '$argument'"
done
cd "$(dirname "$0")/.."

sh tests/packages.sh rsvg-convert:librsvg2-bin
build=${BUILD:-build}
if [ ! -f "$build/build.ninja" ]; then
    echo "building (once)"
    meson setup "$build" -Dtests=false -Dbench=false >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
fi
ninja -C "$build" --quiet

# The program keeps its last line for the end: it draws the SVG, calls rsvg-convert, and says what it did.
eval "exec '$build/examples/quickstart' $arguments"
