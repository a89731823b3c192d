#!/bin/sh
# Decoding of the default bundle, one token after another, beside the machine's memory bandwidth, both in this run; then what numpy
# makes of the same memory, where python3 has numpy.
# Needs `make parts`. CHATXRAY_BUNDLE takes another bundle; CHATXRAY_SPIN=0 measures without spinning threads, as on a shared machine.
set -eu
cd "$(dirname "$0")/../.."
go test ./modelrt -run '^$' -bench '^BenchmarkDecode$' -benchtime 1x -count 1 -v
python=/usr/bin/python3
if "$python" -c 'import numpy' 2>/dev/null; then
  "$python" bench/decode/gemv.py
fi
