#!/bin/sh
# Whether a whole quickstart showed what it is to show: reward rose by learning, the control's did not, and what it says
# it left is there.
# usage: check_quickstart.sh LOG FOLDER
set -eu
log=$1 out=$2
fail() {
    echo "quickstart: $*"
    tail -n 5 "$log"
    exit 1
}

after=$(sed -n '$s/^quickstart: reward 0\.[0-9]* -> \([01]\.[0-9]*\) in [0-9]* s$/\1/p' "$log")
control=$(sed -n 's/^the control, .*: reward 0\.[0-9]* -> \([01]\.[0-9]*\);.*/\1/p' "$log")
[ -n "$after" ] || fail "the last line is another one"
seconds=$(sed -n '$s/.* in \([0-9]*\) s$/\1/p' "$log")
[ "$seconds" -le 60 ] || fail "took $seconds s, 60 are promised on two cores"
[ -n "$control" ] || fail "no line of the control"
awk -v after="$after" 'BEGIN { exit !(after >= 0.9) }' || fail "reward rose to $after only"
awk -v control="$control" 'BEGIN { exit !(control <= 0.5) }' || fail "the control learnt: $control"
for file in metrics.jsonl reward.svg model/model.safetensors model/config.json model/tokenizer.json; do
    [ -s "$out/$file" ] || fail "left no $file"
done
[ "$(od -An -c -N4 "$out/reward.png" | tr -d ' ')" = '211PNG' ] || fail "reward.png is no PNG"
