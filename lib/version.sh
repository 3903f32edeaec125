#!/bin/sh
# Prints the version, or with "soversion" that number, from the one place where they stand.
header=$(dirname "$0")/../include/policygrad/version.h
number() { sed -n "s/^#define PGRAD_$1 \([0-9]*\)$/\1/p" "$header"; }
if [ "$1" = soversion ]; then
    number SOVERSION
else
    echo "$(number VERSION_MAJOR).$(number VERSION_MINOR).$(number VERSION_PATCH)"
fi
