#!/bin/sh
# run.sh knows the names of the figures, and refuses others with the list of them, before it builds anything.
set -u
root=$1
for name in gemm_packed decode_b32 train_step load step_rss allocations size open; do
    said=$(sh "$root/tests/bench/run.sh" "$name" nonsense 2>&1 >/dev/null)
    status=$?
    [ $status = 2 ] || { echo "$name nonsense: status $status instead of 2: $said"; exit 1; }
    case $said in
    *"unknown name: nonsense"*"$name"*) ;;
    *) echo "$name is not in the list: $said"; exit 1 ;;
    esac
done
