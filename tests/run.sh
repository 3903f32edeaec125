#!/bin/sh
# The test command: installs what is missing, builds, runs all tests.
#
#   sh tests/run.sh                 everything, in build/
#   BUILD=DIR sh tests/run.sh       in another folder
#   MESON_ARGS='-Db_sanitize=address,undefined' SHORT=1 BUILD=build-asan sh tests/run.sh
#
# SHORT=1 gives the slow families their short form, LONG=1 has every fault tried, not a selection. Tests of real models look for files in .models
# (tests/fetch_models.sh fills it) and skip, saying so, where they are absent.
set -eu
cd "$(dirname "$0")/.."

sh tests/packages.sh check@check c++:g++ python3:python3
build=${BUILD:-build}
if [ ! -f "$build/build.ninja" ]; then
    # shellcheck disable=SC2086
    meson setup "$build" ${MESON_ARGS:-} >"$build.log" 2>&1 || { cat "$build.log"; exit 1; }
    rm -f "$build.log"
elif ! grep -q tests/test_fail "$build/build.ninja"; then # the quickstart's build has none
    meson configure "$build" -Dtests=true -Dbench=true >/dev/null
fi
ninja -C "$build" --quiet

# Decimal commas are met in a locale that has them (CF09); Debian's images have none.
locale=$build/locale/de_DE.UTF-8
if [ ! -d "$locale" ] && sh tests/packages.sh /usr/share/i18n/locales/de_DE:locales >/dev/null 2>&1; then
    mkdir -p "${locale%/*}"
    localedef -i de_DE -f UTF-8 "$locale" || rm -rf "$locale" # then the tests say that they skip
fi
LOCPATH=$(cd "$build" && pwd)/locale
export LOCPATH

export PGRAD_TEST_MODELS="${PGRAD_TEST_MODELS:-$PWD/.models}"
[ -z "${SHORT:-}" ] || export PGRAD_TEST_SHORT=1
[ -z "${LONG:-}" ] || export PGRAD_TEST_LONG=1
[ -d "$PGRAD_TEST_MODELS" ] || echo "no $PGRAD_TEST_MODELS: tests of real models skip (sh tests/fetch_models.sh)"

status=0
meson test -C "$build" --no-rebuild --print-errorlogs ${TEST_ARGS:-} || status=$?
python3 - "$build/meson-logs/testlog.json" <<'PY'
import json, re, sys
tests = [json.loads(line) for line in open(sys.argv[1])]
results = [test["result"] for test in tests]
passed = results.count("OK") + results.count("EXPECTEDFAIL")
skipped = results.count("SKIP")
lacking = {}  # kernel sets that the machine lacks, and the programs that left them out
for test in tests:
    for name in set(re.findall(r"^skipped: context\.kernel_set: '(\w+)'", test.get("stderr", ""), re.M)):
        lacking[name] = lacking.get(name, 0) + 1
sets = "".join(f"; kernel set {name}: skipped in {n} programs" for name, n in sorted(lacking.items()))
print(f"{passed} passed, {len(results) - passed - skipped} failed, {skipped} skipped{sets}")
for test in tests:
    reasons = re.findall(r"^skipped: (?!context\.kernel_set)(.*)", f"{test.get('stdout')}\n{test.get('stderr')}", re.M)
    name, reason = test["name"].split(" / ")[-1], "; ".join(sorted(set(reasons)))
    if test["result"] == "SKIP":
        print(f"skipped {name}: {reason or 'it does not say why'}")
    elif reasons:
        print(f"skipped in {name}: {reason}")
PY
exit $status
