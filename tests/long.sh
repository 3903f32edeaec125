#!/bin/sh
# The checks that take too long for tests/run.sh and .ci/run, one after the other, each in its own folder: to run before a
# release, and after work on threads, memory, files or kernels. About three hours on two cores, two of them the search of
# the fuzz targets. It goes on after a failure and ends with a line for each.
#
#   sh tests/long.sh [CHECK...]     coverage threads valgrind faults fuzz aarch64: all of them by default
set -u
cd "$(dirname "$0")/.." || exit 1
[ $# -gt 0 ] || set -- coverage threads valgrind faults fuzz aarch64

run() { # CHECK
    case $1 in
    coverage) sh tests/coverage.sh ;;
    threads) sh tests/threads.sh ;;
    valgrind) sh tests/valgrind.sh ;;
    # Every allocation, malloc, read and write of tests/faults fails once, instead of a selection.
    faults) LONG=1 TEST_ARGS='--suite faults --timeout-multiplier 30' CK_TIMEOUT_MULTIPLIER=100 sh tests/run.sh ;;
    fuzz) sh tests/fuzz/run.sh 1800 ;;
    aarch64) sh tests/aarch64/run.sh ;;
    *) echo "$1: none of coverage threads valgrind faults fuzz aarch64" && return 2 ;;
    esac
}
status=0
said=
for check; do
    began=$(date +%s)
    echo "== $check ($(date +%H:%M:%S))"
    result=passed
    run "$check" || { result=FAILED && status=1; }
    said="$said$check: $result in $(($(date +%s) - began)) s
"
done
printf '%s' "$said"
exit $status
