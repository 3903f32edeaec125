#!/usr/bin/env python3
"""Writes trl_rewards.inc: what the rewards shipped with TRL give for some hundred completions.

usage: make_trl_rewards.py >trl_rewards.inc (needs trl, math-verify and latex2sympy2_extended; the test does not)

A completion's token ids are its bytes. Rows of BEYOND are those where the library knowingly differs, with its own
value beside TRL's."""
import json
import logging
import random
import warnings

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")

import trl  # noqa: E402
from trl import rewards  # noqa: E402

# What was answered, and what is right.
ANSWERS = [
    ("5", "5"), ("5", "$5$"), ("6", "5"), ("-5", "5"), ("-5", "-5"), ("05", "5"), ("5.0", "5"), ("5.00", "$5$"),
    ("0.5", "1/2"), ("1/2", "0.5"), (r"\frac{1}{2}", "0.5"), (r"\frac12", "$0.5$"), (r"\dfrac{1}{2}", "1/2"),
    (r"\tfrac{3}{4}", "0.75"), (r"-\frac{1}{2}", "-0.5"), (r"\frac{-1}{2}", "-0.5"), (r"\frac{2}{4}", "1/2"),
    ("0.333333", r"\frac{1}{3}"), ("0.33333", r"\frac{1}{3}"), ("0.666667", r"$\frac{2}{3}$"),
    (r"\frac{1}{3}", r"\frac{1}{3}"), (r"\frac{1}{2}", r"\frac{1}{3}"), (r"50\%", "0.5"), (r"50\%", "50"),
    (r"50\%", "50%"), (r"5\%", "$5$"), ("1,234", "1234"), ("1{,}234", "1234"), ("1234", "1,234"), ("10^3", "1000"),
    (r"2\times 10^{3}", "2000"), (r"2 \cdot 3", "6"), ("2*3", "6"), ("3!", "6"), ("2^{10}", "1024"), ("-2^2", "-4"),
    ("(-2)^2", "4"), (r"\sqrt{4}", "2"), (r"\sqrt{12}", r"$2\sqrt{3}$"), (r"2\sqrt{3}", r"$\sqrt{12}$"),
    (r"\sqrt[3]{8}", "2"), (r"1\frac{1}{2}", "1.5"), (r"\pi", r"$\pi$"), ("3.14159265", r"$\pi$"), ("3.14", r"$\pi$"),
    (r"2\pi", r"$2\pi$"), (r"\pi r^2", r"$\pi r^2$"), ("x=5", "5"), ("x = 5", "$5$"), ("5", "$x=5$"), ("x=5", "$x=6$"),
    ("x=5", "$x=5$"), ("2x=4", "$x=2$"), ("x=y+1", "$y=x-1$"), ("y=x^2", "$x^2$"), ("f(x)=x^2", "$x^2$"),
    ("x+1", "$1+x$"), ("x+1", "$x+2$"), ("(x+1)^2", "$x^2+2x+1$"), ("x^2-1", "$(x-1)(x+1)$"), ("x(x+1)", "$x^2+x$"),
    (r"\frac{1}{2}x", "$x/2$"), (r"\frac{x}{2}", "$0.5x$"), (r"\frac{a}{b}", "$a/b$"), ("ab", "$ba$"), ("ab", "$a+b$"),
    ("2^{x+1}", r"$2\cdot 2^x$"), (r"\sin^2 x+\cos^2 x", "1"), (r"\log_2 8", "3"), (r"\ln e", "1"), ("e", "$e$"),
    ("x_1+x_2", "$x_2+x_1$"), (r"\alpha+1", r"$1+\alpha$"), (r"\binom{5}{2}", "10"), ("|{-3}|", "3"),
    ("1,2", "$1,2$"), ("2,1", "$1,2$"), ("1,3", "$1,2$"), ("1,2,3", "$1,2$"), (r"\{2,1\}", "$1,2$"),
    (r"\{1,2\}", r"$\{1,2\}$"), ("(1,2)", "$(1,2)$"), ("(2,1)", "$(1,2)$"), (r"\left(1,2\right)", "$(1,2)$"),
    ("[1,2)", "$[1,2)$"), ("(1,2]", "$[1,2)$"), (r"(0,\infty)", r"$(0,\infty)$"), (r"\infty", r"$\infty$"),
    ("x<3", "$x<3$"), ("3>x", "$x<3$"), ("x<4", "$x<3$"), (r"x \le 3", r"$x\leq 3$"), ("x>3", "$x<3$"),
    (r"x \geq 3", r"$x\ge 3$"), (r"\pm 3", "$3,-3$"), (r"\pm 3", r"$\pm 3$"), (r"1 \pm \sqrt{2}", r"$1\pm\sqrt{2}$"),
    (r"x=1 \text{ or } x=2", "$1,2$"), ("x=1, x=2", "$1,2$"), (r"5 \text{ cm}", "5"), ("5 apples", "5"),
    (r"5\,\text{kg}", "5"), ("5m", "5"), (r"\$5", "5"), (r"90^\circ", "90"), (r"\textbf{5}", "5"),
    (r"\text{A}", r"$\text{A}$"), ("A", r"$\text{A}$"), ("a", r"$\text{A}$"), ("B", r"$\text{A}$"),
    (r"\text{(B)}", r"$\text{B}$"), (r"\mathrm{B}", "$B$"), (r"\text{yes}", r"$\text{Yes}$"),
    (r"\text{no}", r"$\text{Yes}$"), ("1000000", "1000001"), ("12345678901", "12345678902"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"$\begin{pmatrix}1\\2\end{pmatrix}$"), ("2^3^2", "512"), ("..", "5"),
    ("1/2/2", "0.25"), ("22/7", r"$\frac{22}{7}$"), ("0.1+0.2", "0.3"), (r"3+2i", "$2i+3$"), (r"\emptyset", r"$\emptyset$"),
    (r"x \in [1,2]", "$[1,2]$"), (r"(1,2) \cup (3,4)", r"$(1,2)\cup(3,4)$"), ("12:30", "12:30"), ("5", "no number"),
    ("5", "(1,2)"), ("5", r"\sqrt{25}"), ("72", "#### 72"), ("7", "The answer is 7 apples of 10"), ("7", r"\boxed{7}"),
    ("8", "5 + 3"), ("1234567.1", "1234567.10000001"), (r"\frac{7}{1}", "7.0"), ("-0", "0"), ("0", "$0$"),
    ("1e3", "1000"), (r"\sin(30^\circ)", "0.5"), ("5.", "5"), ("1 000", "1000"), ("2x+3y", "$3y+2x$"),
    (r"\frac{1}{x+1}", r"$\frac{1}{1+x}$"), (r"\frac{x^2-1}{x-1}", "$x+1$"), (r"\sqrt{x^2}", "$x$"), ("-x", "$x$"),
    (r"\frac{\sqrt{2}}{2}", r"$\frac{1}{\sqrt{2}}$"), (r"\tan x", r"$\frac{\sin x}{\cos x}$"), ("a^2+b^2", "$(a+b)^2$"),
    ("1,2 and 3", "$1,2,3$"), ("100", "$10^2$"), ("99.9999999", "100"), ("99.99", "100"),
    (r"3, \frac{6}{2}", "3"), ("1,2,2", "$1,2$"), ("1,1", "$1,2$"), ("x = 64,948", "64,948"),
]
# Where a completion says it; %s is the answer.
PLACES = [r"\boxed{%s}", r"So we get $\boxed{%s}$.", r"The answer is $%s$", r"Final answer: \(%s\) for sure.",
          r"It is %s.", r"It is $%s$.", "First \\boxed{1}, wait. \\boxed{%s}", "$\\boxed{1}$ and then\n$\\boxed{%s}$",
          "answer: $%s$, or was it $7$?", "The answer is\n$$\n%s\n$$\n", r"\boxed{%s", r"\boxed{} %s",
          r"\[ x = \boxed{%s} \]", "The final answer is $%s$. I hope it is correct.", r"<think>$9$</think> \boxed{%s}",
          r"<think>\boxed{3}</think> and </think> answer $%s$"]

# (reward, completion, right answer) -> the library's value, where it differs.
BEYOND = {
    ("accuracy_reward", r"\boxed{\frac12}", "$0.5$"): 1.0,  # math-verify reads \frac12 in some places only
    ("accuracy_reward", "\\boxed{x = 64,948}", "64,948"): 1.0,  # thousands, not x = 64 and 948
    ("accuracy_reward", r"\boxed{5.}", "5"): 1.0,  # a full stop is no part of an answer
    ("accuracy_reward", r"\boxed{99.9999999}", "100"): 1.0,  # equal to six places, as decimals are otherwise
}

TEXTS = ["", " ", "<think>a</think>b", "<think></think>", "<think>\na\n</think>\nb\n", " <think>a</think>b", "<think>a",
         "a</think>b", "<think>a<think>b</think>c", "<think>a</think>b<think>", "<think>a</think>b</think>c",
         "x\n<think>a</think>b", "<think>a</think>\n", "</think><think>", "<think>é</think>ü", "<THINK>a</THINK>",
         "<think >a</think>", "<think>" + "a" * 50 + "</think>" + "b" * 50]


def rows():
    random.seed(5)
    for answer, right in ANSWERS:
        yield "accuracy_reward", {}, r"\boxed{%s}" % answer, right
    for i, place in enumerate(PLACES):
        for answer, right in [("5", "5"), ("6", "$5$"), (r"\frac{1}{3}", r"\frac{1}{3}"), ("x+1", "$1+x$"),
                              ANSWERS[i * 7 % len(ANSWERS)]]:
            text = place % answer
            yield "accuracy_reward", {}, text, right
            yield "reasoning_accuracy_reward", {}, text, right
            yield "get_cosine_scaled_reward", {"max_len": 40}, text, right
    for text in ["<think>a</think>", "a ### b \\boxed{5}", "### \\boxed{4} ### \\boxed{5}", "</think> \\boxed{5} ###"]:
        yield "reasoning_accuracy_reward", {"reasoning_delimiters": ["###", "</think>"]}, text, "5"
    yield "get_cosine_scaled_reward", {"max_len": 100, "min_value_wrong": -3, "max_value_wrong": 0.25,
                                       "min_value_correct": 1, "max_value_correct": 2.5}, "\\boxed{5}", "5"
    yield "get_cosine_scaled_reward", {"max_len": 10, "min_value_wrong": -3}, "\\boxed{5} and more", "4"
    for text in TEXTS:
        if text:
            yield "think_format_reward", {}, text, ""
    for _ in range(60):
        parts = random.choices(["<think>", "</think>", "a", "\n", " ", "answer"], k=random.randint(1, 6))
        yield "think_format_reward", {}, "".join(parts), ""
    for n in (1, 2, 3, 7):
        for penalty in (-1.0, -0.5, 0.0):
            for _ in range(8):
                text = "".join(random.choices("ab c", k=random.randint(1, 60)))
                yield "get_repetition_penalty_reward", {"ngram_size": n, "max_penalty": penalty}, text, ""
    for most, cache in ((20, 4), (20, 0), (20, 20), (10, 15), (0, 0), (30, 7)):
        for length in range(1, 34, 2):
            yield ("get_soft_overlong_punishment", {"max_completion_len": most, "soft_punish_cache": cache},
                   "a" * length, "")


def score(name, arguments, text, right):
    completion, ids = [[{"role": "assistant", "content": text}]], [list(text.encode())]
    if name == "get_cosine_scaled_reward":
        return rewards.get_cosine_scaled_reward(**arguments)(completion, [right], ids)[0]
    if name == "get_repetition_penalty_reward":
        return rewards.get_repetition_penalty_reward(**arguments)(completion_ids=ids)[0]
    if name == "get_soft_overlong_punishment":
        return rewards.get_soft_overlong_punishment(**arguments)(completion_ids=ids)[0]
    if name == "think_format_reward":
        return rewards.think_format_reward(completion)[0]
    return getattr(rewards, name)(completion, [right], **arguments)[0]


def literal(text):
    out = "".join(c if 32 <= ord(c) < 127 and c not in '"\\?' else "".join(f"\\{b:03o}" for b in c.encode())
                  for c in text)
    return f'"{out}"'


def number(value):
    return "NAN" if value is None else repr(float(value))


def main():
    seen = set()
    print(f"/* By make_trl_rewards.py from TRL {trl.__version__}: reward, arguments, completion, right answer, TRL's\n"
          " * value, ours (NaN: not applicable). */")
    for name, arguments, text, right in rows():
        key = (name, json.dumps(arguments), text, right)
        if key in seen:
            continue
        seen.add(key)
        value = score(*((name, arguments, text, right)))
        ours = BEYOND.get((name, text, right), value)
        print("{%s, %s, %s, %s, %s, %s}," % (literal(name), literal(key[1]), literal(text), literal(right),
                                             number(value), number(ours)))


if __name__ == "__main__":
    main()
