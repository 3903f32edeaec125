#!/bin/sh
# Runs the examples as a reader would, with few steps, and looks at what they print and leave.
# usage: run_examples.sh ROOT PROGRAMS LIBRARY
set -eu
root=$1 programs=$2 library=$3
model=$root/examples/embedded/model
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
    echo "$*"
    cat "$work/log"
    exit 1
}
quickstart() { "$programs/quickstart" "$@" >"$work/log" 2>&1; }

quickstart --steps 2 --out "$work/out" || fail "quickstart failed"
tail -n 1 "$work/log" | grep -Eq '^quickstart: reward 0\.[0-9]+ -> [01]\.[0-9]+ in [0-9]+ s$' || fail "the last line"
grep -Eq '^learning +step +[0-9]+/2  reward [01]\.[0-9]{3}  +[0-9]+ tokens/s  +[0-9]+ s left' "$work/log" ||
    fail "the progress line: reward, speed, time left"
grep -q 'perfect one 1' "$work/log" || fail "what scores mean"
grep -q 'loaded again: the same completions' "$work/log" || fail "saved and loaded"
[ "$(wc -l <"$work/out/metrics.jsonl")" = 2 ] || fail "one line of metrics a step"
for file in reward.svg model/model.safetensors model/config.json model/tokenizer.json; do
    [ -s "$work/out/$file" ] || fail "quickstart left no $file"
done
[ "$(grep -c '^ *before ' "$work/log")" -ge 3 ] && [ "$(grep -c '^ *after ' "$work/log")" -ge 3 ] || fail "before and after"
grep -q '<polygon\|<path' "$work/out/reward.svg" || fail "a band"
grep -c '<polyline' "$work/out/reward.svg" | grep -qx 2 || fail "two curves"
quickstart --model "$work/out/model" --steps 1 --out "$work/again" || fail "a Hugging Face folder"
grep -q 'task: words with s' "$work/log" || fail "the task for other models"

# Stopped, and taken up again: as if it had run through.
quickstart --steps 2 --out "$work/part" --resume || fail "quickstart --resume, at first"
quickstart --steps 3 --out "$work/part" --resume || fail "quickstart --resume"
grep -q '^resumed: 2 of 3 steps are done' "$work/log" || fail "what was resumed"
quickstart --steps 3 --out "$work/whole" || fail "quickstart, three steps"
[ "$(wc -l <"$work/part/metrics.jsonl")" = 3 ] || fail "one line of metrics a step, resumed"
cmp "$work/part/model/model.safetensors" "$work/whole/model/model.safetensors" || fail "the resumed model"
cmp "$work/part/reward.svg" "$work/whole/reward.svg" || fail "the resumed curve"

quickstart --model "$work/nowhere" --out "$work/none" && fail "a missing model is no error"
grep -q 'E_IO.*nowhere' "$work/log" || fail "the message names the file"
[ ! -e "$work/none" ] || fail "a failure leaves a folder"
for words in '--step 3' '--steps 2x' '--steps 0' '--model'; do
    # shellcheck disable=SC2086
    if quickstart $words; then fail "'$words' was taken"; else [ $? = 2 ] || fail "'$words': another status"; fi
    grep -q "^${words%% *}: " "$work/log" || fail "'$words': the message does not say what is wrong"
done

# learns: the reward of the last "epoch N reward R" is above that of the first
learns() {
    awk '$1 == "epoch" { if (n++ == 0) first = $4; last = $4 } END { exit !(n >= 3 && last > first + 0.1) }' "$work/log"
}
"$programs/policy_gradient" "$model" 30 >"$work/log" 2>&1 || fail "policy_gradient failed"
learns || fail "policy_gradient does not learn"
POLICYGRAD_LIBRARY=$library python3 "$root/examples/python/policy_gradient.py" "$model" 30 >"$work/log" 2>&1 ||
    fail "policy_gradient.py failed"
learns || fail "policy_gradient.py does not learn"
echo "examples run"
