#!/usr/bin/env python3
"""Marks the plain comments of a public header as documentation, for doxygen: INPUT_FILTER of docs/Doxyfile.

The first comment is the file's; one that begins a line belongs to what follows it; one behind code on its line to what
stands before it. Comments on lines of their own inside a struct or enum are headings, and stay as they are. What doxygen
would take for a command, a tag or a link is escaped, except in indented lines, which are code."""
import pathlib
import re
import sys


def escaped(line):
    """A line of a comment's text; five spaces behind the star make code."""
    if re.match(r"\s*(\*|//)\s{5,}\S", line):
        return line
    return re.sub(r"([\\@<>#&$%])", r"\\\1", line)


def c_comment(match, source):
    text = match.group()
    before = source[source.rfind("\n", 0, match.start()) + 1:match.start()]
    if before.startswith("#"):
        return text
    body = "\n".join(map(escaped, text[2:-2].split("\n")))
    if match.start() == 0:
        main = f"/** @mainpage libpolicygrad\n *{body}*/\n" if path.name == "policygrad.h" else ""
        return main + "/** @file\n *" + body + "*/"
    if not before:
        return "/**" + re.sub(r"\b(Errors|Threads): ", r"\n * @par \1\n * ", body) + "*/"
    return "/**<" + body + "*/" if before.strip() else text


def cpp_line(line, first):
    match = re.match(r"(\s*)//(.*)$", line)
    if match:
        indent, text = match.groups()
        return ("/// @file\n" if first else "") + indent + "///" + escaped("//" + text)[2:]
    match = re.match(r"(.*\S)\s*//(.*)$", line)
    return f"{match.group(1)} ///<{escaped(match.group(2))}" if match else line


path = pathlib.Path(sys.argv[1])
source = path.read_text(encoding="utf-8")
if path.suffix == ".hpp":
    lines = source.split("\n")
    sys.stdout.write("\n".join(cpp_line(line, i == 0) for i, line in enumerate(lines)))
else:
    sys.stdout.write(re.sub(r"/\*.*?\*/", lambda match: c_comment(match, source), source, flags=re.S))
