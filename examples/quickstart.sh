#!/bin/sh
# Installs what is missing, builds, and teaches a language model something you can see.
#
#   sh examples/quickstart.sh                   the embedded model; under a minute after the build
#   sh examples/quickstart.sh --model PATH      a GGUF file or a Hugging Face folder
#   sh examples/quickstart.sh --steps N         another number of steps
#   sh examples/quickstart.sh --out FOLDER      where to leave metrics.jsonl, reward.svg, reward.png and the
#                                               trained model; quickstart-out in the source tree otherwise
#   sh examples/quickstart.sh --resume          keep the run's state there too, and take up what is there: stop it
#                                               with Ctrl-C, start it again and it goes on; killed, it loses
#                                               ten steps at most
set -eu
usage() {
    echo "usage: sh examples/quickstart.sh [--model PATH] [--steps N] [--out FOLDER] [--resume]" >&2
    exit 2
}

# Paths are meant from where the user stands; the rest runs in the source tree.
n=$#
while [ "$n" -gt 0 ]; do
    case $1 in
    -h | --help)
        sed -n '2,11s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    --model | --out)
        [ "$n" -ge 2 ] || usage
        case $2 in
        /*) value=$2 ;;
        *) value=$PWD/$2 ;;
        esac
        ;;
    --steps)
        [ "$n" -ge 2 ] || usage
        value=$2
        ;;
    --resume)
        set -- "$@" "$1"
        shift
        n=$((n - 1))
        continue
        ;;
    *) usage ;;
    esac
    set -- "$@" "$1" "$value"
    shift 2
    n=$((n - 2))
done
cd "$(dirname "$0")/.."

sh tests/packages.sh rsvg-convert:librsvg2-bin
build=${BUILD:-build}
if [ ! -f "$build/build.ninja" ]; then
    echo "building (once, about a minute)"
    # shellcheck disable=SC2086
    meson setup "$build" -Dtests=false -Dbench=false ${MESON_ARGS:-} >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
elif [ ! -d "$build/examples" ]; then
    meson configure "$build" -Dexamples=true >/dev/null
fi
ninja -C "$build" >"$build/quickstart-build.log" 2>&1 || { cat "$build/quickstart-build.log"; exit 1; }

# The program keeps its last line for the end: it draws the SVG, calls rsvg-convert, and says what it did.
exec "$build/examples/quickstart" "$@"
