#!/usr/bin/env python3
"""Runs what README.md, docs/ and examples/README.md say: every fenced block by its first info word, in a folder with
nothing but the source tree's parts in it.

c, cpp   a whole program, or a part of one: then the static functions it begins with stand in front of main, the rest inside
         of it, behind the usual handles (CONTEXT below); no call in it may fail, unless the info says `fails`
python   a program, with examples/python on its path
sh       commands; those that take minutes or the network are in ELSEWHERE, with the place that runs them
json     parsed (docs/rewards.md's are given to the library by check_rewards.py)
text     not run, and counted; `text output`: what the block before it printed, but for numbers

Commands in indented blocks count as sh. Beside that: links and paths lead somewhere, and names of the interface exist.

usage: check_blocks.py ROOT BUILD LIBRARY CC CXX [PAGE...]"""
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile

# Commands that are not run here: the file that runs them, and what stands there.
ELSEWHERE = {
    "sh examples/quickstart.sh": (".ci/run", "sh examples/quickstart.sh"),
    "sh tests/run.sh": (".ci/run", "sh tests/run.sh"),
    "sh tests/packages.sh": ("tests/run.sh", "sh tests/packages.sh"),
    "sh tests/fetch_models.sh": (".ci/run", "sh tests/fetch_models.sh --all"),
    "sh tests/fuzz/run.sh": (".ci/run", "sh tests/fuzz/run.sh 15"),
    "sh tests/docs/run_doxygen.sh": ("tests/meson.build", "docs/run_doxygen.sh"),
    "meson setup build-install -Dtests=false -Dbench=false && meson install -C build-install && ldconfig":
        ("tests/install/check_install.sh", "meson install"),
    "cc program.c $(pkg-config --cflags --libs policygrad) -o program":
        ("tests/install/check_install.sh", "pkg-config"),
    "MESON_ARGS='-Db_sanitize=address,undefined -Db_lundef=false' SHORT=1 BUILD=build-asan sh tests/run.sh":
        (".ci/run", "-Db_sanitize=address,undefined -Db_lundef=false"),
}
COMMAND = re.compile(r"(sh|meson|ninja|cc|c\+\+|python3|pip|build/\S+|[A-Z_]+='?\S.*) ")

# What a C fragment may use, as a program in the middle of its work has it.
C_INCLUDES = """#include "examples/common.h"
#include <math.h>
#include <string.h>
"""
CONTEXT = """
int main(void)
{
    const char *path = "examples/embedded/model", *prompt = "paint it red:";
    pgrad_context *context; pgrad_model *model; pgrad_tokenizer *tokenizer; pgrad_sampler *sampler;
    pgrad_rollout *rollout; pgrad_reward *reward; pgrad_advantage *advantage; pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_rollout_params few;
    pgrad_optimizer_params optimizer_params;
    pgrad_token ids[64];
    size_t n;
    uint32_t group;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    CHECK(pgrad_sampler_create(context, NULL, &sampler));
    pgrad_rollout_params_init(&few, sizeof few);
    few.max_new_tokens = 24;
    CHECK(pgrad_rollout_create(model, tokenizer, &few, &rollout));
    CHECK(pgrad_reward_builtin(context, "length", "{\\"target\\": 6}", &reward));
    CHECK(pgrad_advantage_create(context, NULL, &advantage));
    CHECK(pgrad_objective_create(model, NULL, &objective));
    pgrad_optimizer_params_init(&optimizer_params, sizeof optimizer_params);
    optimizer_params.max_grad_norm = INFINITY;
    CHECK(pgrad_optimizer_create(model, &optimizer_params, &optimizer));
    CHECK(pgrad_tokenizer_encode(tokenizer, prompt, strlen(prompt), 0, ids, 64, &n));
    CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, &group));
    CHECK(pgrad_rollout_set_data(rollout, group, "answer", "red", 3));
    CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
    CHECK(pgrad_reward_apply(reward, rollout));
    CHECK(pgrad_advantage_apply(advantage, rollout));
    {
%s
    }
    if ((pgrad_error_message()[0] != 0) != %d)
        return fprintf(stderr, "a call failed, or none did: %%s\\n", pgrad_error_message()), 1;
    return 0;
}
"""
CPP_INCLUDES = """#include <policygrad/policygrad.hpp>
#include <cstdio>
#include <iostream>
"""
CPP_CONTEXT = """
int main()
{
    const std::string path = "examples/embedded/model";
    pgrad::context context;
    pgrad::model model = pgrad::model::load(context, path);
    pgrad::tokenizer tokenizer = pgrad::tokenizer::load(context, path);
    pgrad::sampler sampler(context);
    pgrad::rollout rollout(model, tokenizer);
    rollout.add_prompt(tokenizer.encode("paint it red:"));
    rollout.generate(sampler);
    {
%s
    }
    (void)%d;
}
"""


failures = []


def fail(page, line, text):
    failures.append(f"{page}:{line}: {text}")


def blocks_of(page, text):
    """(line, info words, code), and indented commands as sh."""
    lines, i = text.split("\n"), 0
    while i < len(lines):
        fence = re.match(r"```(.*)$", lines[i])
        if fence:
            end = next((j for j in range(i + 1, len(lines)) if lines[j] == "```"), None)
            if end is None or not fence.group(1):
                fail(page, i + 1, "a fence without an info word, or without an end")
                return
            yield i + 1, fence.group(1).split(), "\n".join(lines[i + 1:end]) + "\n"
            i = end
        elif re.match(r"    \S", lines[i]) and COMMAND.match(lines[i].strip() + " "):
            yield i + 1, ["sh"], re.sub(r"\s+#.*", "", lines[i].strip()) + "\n"
        i += 1


class Runner:
    def __init__(self, root, build, library, cc, cxx):
        self.root, self.build, self.library, self.cc, self.cxx = root, build, library, cc.split(), cxx.split()
        self.environment = dict(
            os.environ, POLICYGRAD_LIBRARY=str(library), LD_LIBRARY_PATH=str(library.parent),
            PYTHONPATH=str(root / "examples/python"), PKG_CONFIG_PATH=".", CC=cc)
        self.output = ""

    def run(self, *command):
        done = subprocess.run(command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"status {done.returncode}: {done.stdout}")
        self.output = done.stdout

    def compiled(self, info, code, compiler, includes, context, suffix):
        if not re.search(r"\bmain\s*\(", code):
            cut = re.match(r"(#.*\n|\n|static [^;{]*\n\{\n(.*\n)*?\}\n)*", code).end()
            code = includes + code[:cut] + context % (code[cut:], "fails" in info)
        pathlib.Path("program" + suffix).write_text(code)
        self.run(*compiler, "-Wall", "-Wextra", "-Werror", "-Wno-unused", f"-I{self.root}/include", f"-I{self.root}",
                 "program" + suffix, f"-L{self.library.parent}", "-lpolicygrad", "-lm", "-o", "program")
        self.run("./program")

    def c(self, info, code):
        self.compiled(info, code, self.cc + ["-std=c11"], C_INCLUDES, CONTEXT, ".c")

    def cpp(self, info, code):
        self.compiled(info, code, self.cxx + ["-std=c++11"], CPP_INCLUDES, CPP_CONTEXT, ".cpp")

    def python(self, info, code):
        self.run(sys.executable, "-c", code)

    def sh(self, info, code):
        self.run("sh", "-euc", code)

    def json(self, info, code):
        json.loads(code)


def masked(text):
    return re.sub(r"[-+]?\d[\d.e+-]*", "#", " ".join(text.split()))


used = set()  # of ELSEWHERE


def elsewhere(root, page, line, code):
    """Commands of a block that another place runs; the rest."""
    left = []
    for command in code.strip().split("\n"):
        command = re.sub(r"\s+#.*", "", command).strip()
        known = next((known for known in ELSEWHERE if command == known or
                      known.startswith("sh ") and command.startswith(known + " ")), None)
        if known is None:
            left.append(command)
            continue
        used.add(known)
        place, by = ELSEWHERE[known]
        if by not in (root / place).read_text():
            fail(page, line, f"{command}: expected {place} to run it, by \"{by}\"")
    return "\n".join(left) + "\n" if left else ""


def run_blocks(runner, page, text):
    counts = {"run": 0, "elsewhere": 0, "text": 0}
    for line, info, code in blocks_of(page, text):
        kind = info[0]
        if kind == "text":
            counts["text"] += 1
            if info[1:] == ["output"]:
                for expected in filter(None, map(masked, code.split("\n"))):
                    if expected != "..." and expected not in map(masked, runner.output.split("\n")):
                        fail(page, line, f"expected the output {expected}, found\n{runner.output}")
            continue
        if kind not in ("c", "cpp", "python", "sh", "json"):
            fail(page, line, f"expected c, cpp, python, sh, json or text, found {kind}")
            continue
        if kind == "sh":
            rest = elsewhere(runner.root, page, line, code)
            counts["elsewhere"] += len(code.strip().split("\n")) - len(rest.strip().split("\n") if rest else [])
            if not rest:
                continue
            code = rest
        try:
            getattr(runner, kind)(info, code)
        except (RuntimeError, ValueError) as failure:
            fail(page, line, failure)
            continue
        if page == "README.md":
            CHECKS.get(kind, lambda output: None)(runner.output)
        counts["run"] += 1
    return counts


def learnt_c(output):
    before, after = map(float, re.match(r"reward (\S+) -> (\S+), saved in tuned$", output).groups())
    assert after > before + 0.2, (before, after)
    assert pathlib.Path("tuned/model.safetensors").stat().st_size > 1e5


def learnt_python(output):
    rewards = [float(line.split()[1]) for line in output.splitlines() if re.match(r"\d+ [\d.]+ ", line)]
    assert len(rewards) == 40 and sum(rewards[-5:]) > sum(rewards[:5]) + 1, rewards


CHECKS = {"c": learnt_c, "python": learnt_python}


def names_of(root):
    headers = "".join(path.read_text() for path in (root / "include").rglob("*.h*"))
    private = "".join(path.read_text() for path in (root / "lib").rglob("*.[ch]"))
    return set(re.findall(r"\b(?:pgrad|PGRAD)_[a-zA-Z]\w*", headers) + re.findall(r"\b(?:pgrad|PGRAD)__\w+", private)), set(re.findall(r"\bPGRAD_(E_[A-Z]+)", headers))


def check_words(root, page, text, names, statuses):
    """Links, paths and names."""
    folder = (root / page).parent
    prose = re.sub(r"^```.*?^```$", lambda block: "\n" * block.group().count("\n"), text, flags=re.M | re.S)
    for number, line in enumerate(prose.split("\n"), 1):
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", line):
            if not (folder / target).exists():
                fail(page, number, f"a link to {target}, which is not there")
        for path in re.findall(r"`((?:lib|tests|docs|examples|include|pkgconfig)/[\w./-]*\w/?)`", line):
            if not (root / path).exists() and "_NAME." not in path:
                fail(page, number, f"{path} is not there")
        for script, options in re.findall(r"`(?:sh |python3 )?((?:examples|tests|docs)/[\w/.]+\.(?:sh|py))( [^`]*)?`", line):
            if not (root / script).exists():
                fail(page, number, f"{script} is not there")
                continue
            beside = "".join(path.read_text() for path in (root / script).parent.glob("*.*[hyc]"))  # it may hand them on
            for option in re.findall(r" (--[\w-]+)", options):
                if option not in beside:
                    fail(page, number, f"{script} knows no {option}")
    for number, line in enumerate(text.split("\n"), 1):
        for name in re.findall(r"\b(?:pgrad|PGRAD)_[a-zA-Z]\w*\b(?![*.])", line):
            if name not in names and not re.search(r"_$|_X\b|_X_|_NAME\b|^PGRAD_TEST_|^pgrad_noun_verb$", name):
                fail(page, number, f"{name} is no name of the interface")
        for name in re.findall(r"\b(?:pgrad|PGRAD)__\w+", line):
            if name not in names and not re.search(r"_$|^pgrad__noun_verb$", name):
                fail(page, number, f"{name} is no private name")
        for name in re.findall(r"(?<![\w])(E_[A-Z]{2,})\b", line):
            if name not in statuses:
                fail(page, number, f"{name} is no status")


def main():
    root, build, library = (pathlib.Path(argument).resolve() for argument in sys.argv[1:4])
    runner = Runner(root, build, library, *sys.argv[4:6])
    pages = sys.argv[6:] or ["README.md", "examples/README.md"] + sorted(
        path.relative_to(root).as_posix() for path in (root / "docs").glob("*.md"))
    names, statuses = names_of(root)
    total = {}
    for page in pages:
        text = (root / page).read_text()
        check_words(root, page, text, names, statuses)
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            for part in ("examples", "include", "tests", "docs", "lib"):
                pathlib.Path(part).symlink_to(root / part)
            pathlib.Path("build").symlink_to(build)
            pathlib.Path("policygrad.pc").write_text(  # as if it were installed
                f"Name: policygrad\nDescription: built\nVersion: 0\nCflags: -I{root}/include\n"
                f"Libs: -L{library.parent} -lpolicygrad\n")
            counts = run_blocks(runner, page, text)
            os.chdir("/")
        for key, value in counts.items():
            total[key] = total.get(key, 0) + value
    if not sys.argv[6:]:
        failures.extend(f"ELSEWHERE: no page says {known}" for known in ELSEWHERE if known not in used)
    if failures:
        sys.exit("\n".join(failures))
    print(f"{len(pages)} pages: {total['run']} blocks run, {total['elsewhere']} commands run elsewhere, "
          f"{total['text']} blocks of text")


if __name__ == "__main__":
    main()
