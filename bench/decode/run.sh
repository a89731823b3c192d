#!/bin/sh
# Decoding of the default bundle in each of its forms, one token after another, each beside the machine's memory bandwidth in the same run, without
# spinning threads, as served by default. Needs `make parts`. CHATXRAY_BUNDLE takes another bundle, ROUNDS another number of rounds,
# CHATXRAY_SPIN=1 lets ONNX Runtime's threads spin.
set -eu
cd "$(dirname "$0")/../.."
test=$(mktemp)
trap 'rm -f "$test"' EXIT
go test -c -o "$test" ./modelrt
cd modelrt
for round in $(seq "${ROUNDS:-4}"); do
  for form in fp32 q4 standard; do
    echo "round $round, form $form"
    CHATXRAY_SPIN=${CHATXRAY_SPIN:-0} CHATXRAY_FORM=$form "$test" -test.run '^$' -test.bench '^BenchmarkDecode$' -test.benchtime 1x
  done
done
