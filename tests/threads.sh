#!/bin/sh
# Looks for data races: the tests that use threads, under ThreadSanitizer.
#
#   sh tests/threads.sh [TEST...]
set -eu
cd "$(dirname "$0")/.."
[ $# -gt 0 ] || set -- pool context host generate generate_events exact_kept exact_kept_sharing
# A child of fork() with threads may start its own; Check runs without children here.
CK_FORK=no SHORT=1 BUILD="${BUILD:-build-tsan}" TEST_ARGS="$*" \
    MESON_ARGS='-Db_sanitize=thread -Db_lundef=false -Dbench=false -Dexamples=false' \
    TSAN_OPTIONS=halt_on_error=1:die_after_fork=0 sh tests/run.sh
