#!/bin/sh
# Takes single micro-kernels out of BLIS's static archive and gives them private names, so that the library
# holds them without the rest of BLIS: no initialisation, no environment variables, no foreign exports.
#
# usage: extract_blis.sh OUTPUT.o ARCHIVE LD OBJCOPY AR MEMBER.o:SYMBOL:NEW_NAME ...
set -eu
output=$1 archive=$2 ld=$3 objcopy=$4 ar=$5
shift 5
output=$(cd "$(dirname "$output")" && pwd)/$(basename "$output")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
arguments=
members=
for item in "$@"; do
    member=${item%%:*} rest=${item#*:}
    "$ar" x "$archive" "$member"
    members="$members $member"
    arguments="$arguments --redefine-sym ${rest%%:*}=${rest#*:} --keep-global-symbol=${rest#*:}"
done
# shellcheck disable=SC2086
"$ld" -r -o joined.o $members
# shellcheck disable=SC2086
"$objcopy" $arguments joined.o "$output"
