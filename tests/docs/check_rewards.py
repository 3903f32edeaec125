#!/usr/bin/env python3
"""Holds docs/rewards.md against the library: every builtin reward has its section, with the library's own words
about it and its arguments, and an example that the library takes.

usage: check_rewards.py LIBRARY ROOT [--write]     (--write puts the library's words into the page)"""
import ctypes
import json
import pathlib
import re
import sys


def described(library):
    library.pgrad_reward_builtin_name.restype = ctypes.c_char_p
    found, i = [], 0
    while (name := library.pgrad_reward_builtin_name(ctypes.c_uint32(i))) is not None:
        length = ctypes.c_size_t()
        library.pgrad_reward_builtin_describe(name, None, ctypes.c_size_t(0), ctypes.byref(length))
        text = ctypes.create_string_buffer(length.value + 1)
        status = library.pgrad_reward_builtin_describe(name, text, ctypes.c_size_t(len(text)), ctypes.byref(length))
        assert status == 0, name
        found.append(json.loads(text.value.decode()))
        i += 1
    return found


def accepts(argument):
    if "choices" in argument:
        return ", ".join(f"`{choice}`" for choice in argument["choices"])
    if argument["type"] == "boolean":
        return "boolean"
    bounds = " to ".join(f"{end:.0f}" if abs(end) < 1e12 else f"{end:g}" for end in (argument["min"], argument["max"]))
    return {"integer": f"whole, {bounds}", "number": f"number, {bounds}", "string": f"string, {bounds} bytes",
            "strings": f"strings, {bounds} of them"}[argument["type"]]


def table(reward):
    words = re.sub(r"</?\w+>", r"`\g<0>`", reward["help"])
    lines = [f"{words[0].upper()}{words[1:]}."]
    if reward["report_name"] != reward["name"]:
        lines[0] += f" Reported as `{reward['report_name']}`."
    arguments = [argument for argument in reward["arguments"] if argument["name"] != "name"]
    if arguments:
        lines += ["", "| argument | accepts | default | |", "|---|---|---|---|"]
    for argument in arguments:
        default = "*required*" if argument.get("required") else f"`{json.dumps(argument['default'])}`"
        lines.append(f"| `{argument['name']}` | {accepts(argument)} | {default} | {argument['help']} |")
    return "\n".join(lines) + "\n"


def sections(page):
    """Name -> (where its generated part begins and ends, the whole text)."""
    found = {}
    for match in re.finditer(r"^### `(\w+)`\n\n(.*?)(?=^##|\Z)", page, re.M | re.S):
        body = match.group(2)
        generated = re.match(r"[^\n]*\n(?:\n(?:\|[^\n]*\n)+)?", body)
        found[match.group(1)] = (match.start(2), match.start(2) + generated.end(), body)
    return found


def main():
    library, path = ctypes.CDLL(sys.argv[1]), pathlib.Path(sys.argv[2]) / "docs" / "rewards.md"
    library.pgrad_error_message.restype = ctypes.c_char_p
    page, rewards, bad = path.read_text(encoding="utf-8"), described(library), []
    if "--write" in sys.argv:
        for reward in rewards:
            begin, end, _ = sections(page)[reward["name"]]
            page = page[:begin] + table(reward) + page[end:]
        path.write_text(page, encoding="utf-8")
    there = sections(page)
    if list(there) != [reward["name"] for reward in rewards]:
        bad.append(f"sections: expected {[reward['name'] for reward in rewards]}, found {list(there)}")
    context = ctypes.c_void_p()
    assert library.pgrad_context_create(None, ctypes.byref(context)) == 0
    for reward in rewards:
        begin, end, body = there.get(reward["name"], (0, 0, ""))
        if page[begin:end] != table(reward):
            bad.append(f"{reward['name']}: expected\n{table(reward)}found\n{page[begin:end]}")
        examples = re.findall(r"^```json\n(.*?)^```", body, re.M | re.S)
        if not examples:
            bad.append(f"{reward['name']}: no example")
        for example in examples:
            out = ctypes.c_void_p()
            if library.pgrad_reward_builtin(context, reward["name"].encode(), example.encode(), ctypes.byref(out)):
                bad.append(library.pgrad_error_message().decode())
            library.pgrad_reward_free(out)
    library.pgrad_context_free(context)
    print("\n".join(bad) if bad else f"docs/rewards.md: {len(rewards)} rewards as they are")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
