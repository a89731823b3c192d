#!/bin/sh
# File in memory to tensor: Go beside Python, both in this run. Needs Debian's python3-pydicom, python3-numpy and python3-pil.
set -eu
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
go test -c -o "$work/bench" .
/usr/bin/python3 compare.py "$work/bench" "$work"
