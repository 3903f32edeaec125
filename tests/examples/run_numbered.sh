#!/bin/sh
# Runs the numbered examples as their comments say, and holds each against the one thing it shows.
# usage: run_numbered.sh ROOT PROGRAMS LIBRARY
set -eu
root=$1 programs=$2
export POLICYGRAD_LIBRARY="$3"
model=$root/examples/embedded/model
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ran=
fail() {
    echo "$name: $*"
    cat "$work/log"
    exit 1
}
run() { # NAME ARGUMENTS...
    name=$1
    shift
    ran="$ran $name"
    if [ "${name%.py}" != "$name" ]; then
        python3 "$root/examples/$name" "$@" >"$work/log" 2>&1 || fail "status $?"
    else
        "$programs/${name%.c*}" "$@" >"$work/log" 2>&1 || fail "status $?"
    fi
}
says() { # a line that the output must have
    grep -Eq -- "$1" "$work/log" || fail "expected a line like $1"
}
# rises WORD MORE: the mean of the number behind WORD over the last three lines that have it, above that over the first three
rises() {
    awk -v word="$1" -v more="$2" '{ for (i = 1; i < NF; i++) if ($i == word) value[n++] = $(i + 1) }
        END { exit !(n >= 8 && value[n - 1] + value[n - 2] + value[n - 3] > value[0] + value[1] + value[2] + 3 * more) }' \
        "$work/log" || fail "$1 does not rise"
}

run 01_load.c "$model"
says '^llama: 3 layers, 4 heads, 641280 parameters, 395 tokens, context 128$'
says 'model.layers.0.self_attn.q_proj.weight +128 x 128$'
[ "$(sed -n '/what comes next/,$p' "$work/log" | wc -l)" = 6 ] || fail "five tokens"

printf 'the red fox likes the red lamp.\nlamp the the the.\n' >"$work/lines"
run 02_score.c "$model" <"$work/lines"
awk '$3 == "perplexity" { value[n++] = $4 } END { exit !(n == 2 && value[1] > 3 * value[0]) }' "$work/log" ||
    fail "what the model says is likelier than nonsense"
grep -q 'standard input' "$work/log" && fail "nobody is there to be told"
python3 -c 'import os, pty, subprocess, sys
master, terminal = pty.openpty()
os.write(master, b"the red fox.\n\4")
subprocess.run(sys.argv[1:], stdin=terminal, check=True)' "$programs/02_score" "$model" >"$work/log" 2>&1 || fail "a terminal"
says '^reads lines to score from standard input; Ctrl-D ends them$'
says '^logprob .* the red fox\.$'

run 03_sample.c "$model" 'paint it blue:' 1
[ "$(wc -l <"$work/log")" = 8 ] || fail "eight completions"
says '^stop string'
grep -q '^stop string.* in the' "$work/log" && fail "a stop string is no part of the text"
cp "$work/log" "$work/seed1"
run 03_sample.c "$model" 'paint it blue:' 1
cmp -s "$work/log" "$work/seed1" || fail "the same seed, other completions"
run 03_sample.c "$model" 'paint it blue:' 2
cmp -s "$work/log" "$work/seed1" && fail "another seed, the same completions"

run 04_reward.c "$model"
[ "$(grep -c '^group' "$work/log")" = 8 ] || fail "eight completions"
awk '{ has = index($0, $2 == 0 ? "blue" : "gold") > 0; if ($4 != has) exit 1 }' "$work/log" || fail "a wrong score"

run 05_step.c "$model"
rises reward 0.1
awk '{ print $1, $2, $3, $4 }' "$work/log" >"$work/steps"

run 06_train.c "$model" "$work/part" 10
says '^10 steps, 0 of them before'
run 06_train.c "$model" "$work/part" 20
says '^step 11 ' && says '^20 steps, 10 of them before'
run 06_train.c "$model" "$work/whole" 20
rises reward 0.1
cmp -s "$work/part/model.safetensors" "$work/whole/model.safetensors" || fail "resumed, another model"

run 07_rewards_by_name.c "$model"
says '^regex +0.00 +1.00 +0.00$'
says '^numeric +0.00 +1.00 +0.00$'
says '^length +0.75 +0.50 +1.00$'

run 08_weighted_rewards.c "$model"
awk '{ value[$1] = $2 }
    END { off = value["reward"] - value["rewards/obeys/mean"] - value["rewards/repetition/mean"] / 2 - value["rewards/variety/mean"] / 20
          exit !(off < 2e-4 && off > -2e-4 && value["rewards/variety/mean"] > 5) }' "$work/log" || fail "the sum is no sum"

run 09_kl.c "$model"
awk '{ value[NR] = $NF } END { exit !(NR == 2 && value[1] > 0.5 && value[2] < value[1] / 4) }' "$work/log" ||
    fail "KL does not hold the model"

run 10_memory.c "$model"
awk '/^limit/ { limit = $2 } /^under it/ { under = $3 } /^no limit/ { all = $3 }
    END { exit !(under > 0 && under <= limit && limit < all) }' "$work/log" || fail "no plan under the limit"

run 11_narrow.c "$model"
awk '{ bytes[$1] = $2; value[$1] = $NF }
    END { off = value["q8_0"] - value["f32"]
          exit !(bytes["bf16"] < 0.51 * bytes["f32"] && bytes["q8_0"] < 0.28 * bytes["f32"] && value["bf16"] == value["f32"] &&
                 off != 0 && off < 1 && off > -1) }' "$work/log" || fail "storages"

if [ -x "$programs/12_cpp" ]; then
    run 12_cpp.cpp "$model"
    says '^caught: thrown in the reward$'
    awk '/^step/ { print $1, $2, $3, $4 }' "$work/log" >"$work/cpp"
    cmp -s "$work/cpp" "$work/steps" || fail "C and C++ differ"
else
    ran="$ran 12_cpp.cpp"
    echo "skipped: 12_cpp, for want of a C++ compiler"
fi

run 13_python.py "$model"
rises reward 0.1
says '^E_INVALID: sampler.temperature: expected a number in .*, found -1$'
[ "$(grep -c '^mean log-probability' "$work/log")" = 2 ] || fail "two completions"

# Every numbered file was run, and the index names it.
for path in "$root"/examples/[0-9][0-9]_*; do
    name=${path##*/}
    case "$ran " in *" $name "*) ;; *) fail "was not run" ;; esac
    grep -qF "[$name]($name)" "$root/examples/README.md" || fail "is not in examples/README.md"
done
echo "the numbered examples show what they say"
