#!/bin/sh
# Compiles each public header alone, and twice, as C99, C11, C++11 and C++20, warnings as errors.
# usage: check_headers.sh ROOT CC CXX
set -eu
root=$1 cc=$2 cxx=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
count=0
try() { # COMPILER STANDARD LANGUAGE FILE
    "$1" "-std=$2" -x "$3" -pedantic -Wall -Wextra -Wshadow -Wconversion -Werror -I"$root/include" \
        -fsyntax-only "$4"
    count=$((count + 1))
}
for header in "$root"/include/policygrad.h "$root"/include/policygrad/*.h; do
    name=${header#"$root"/include/}
    printf '#include <%s>\n#include <%s>\n' "$name" "$name" >"$work/header.c"
    for standard in c99 c11; do try "$cc" $standard c "$work/header.c"; done
    for standard in c++11 c++20; do try "$cxx" $standard c++ "$work/header.c"; done
done
for header in "$root"/include/policygrad/*.hpp; do
    [ -e "$header" ] || continue
    printf '#include <policygrad/%s>\n#include <policygrad/%s>\n' "${header##*/}" "${header##*/}" >"$work/header.cc"
    for standard in c++11 c++20; do try "$cxx" $standard c++ "$work/header.cc"; done
done
# Every function has a comment right above it.
awk '/^PGRAD_API/ && before !~ /\*\/[ \t]*$/ { print FILENAME ":" FNR ": no comment: " $0; bad = 1 }
     { before = $0 } END { exit bad }' "$root"/include/policygrad/*.h
echo "$count compilations of public headers, no warning"
