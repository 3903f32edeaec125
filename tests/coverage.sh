#!/bin/sh
# What the tests run of lib/, by gcov: lines, statements that word an error, and those that pass one up. Status 1: a test
# failed, or less was run than tests/coverage.py asks for.
#
#   sh tests/coverage.sh [--missing]
#
# --missing lists the errors that no test reaches.
set -eu
cd "$(dirname "$0")/.."
build=${BUILD:-build-coverage}
[ ! -d "$build" ] || find "$build" -name '*.gcda' -exec rm -f {} +
# What is told is told by the programs of lib/'s layers and by its hosts; lint, docs and installing run none of it anew.
suites=
for suite in base io text kernel model rl train faults exact api python; do suites="$suites --suite $suite"; done
# A program's data are written when it ends, a child's too; one process a program writes them once.
# Functions are not inlined before the counters are put in: the branch behind a call stays on the line of the call.
status=0
CC=gcc CXX=g++ CK_FORK=no SHORT=1 BUILD=$build TEST_ARGS="$suites --timeout-multiplier 4" \
    MESON_ARGS='-Db_coverage=true -Doptimization=1 -Dc_args=-fno-early-inlining -Dbench=false -Dexamples=false' sh tests/run.sh || status=$?
python3 tests/coverage.py "$build" . "$@" || status=1
exit $status
