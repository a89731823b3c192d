#!/bin/sh
# The engine over the default bundle, in each flat form: reports side by side, waiting under load, the second turn of a conversation, what
# evidence costs, how soon a cancelled request is gone; then decoding beside other engines (peers.sh). Needs `make parts`. CHATXRAY_BUNDLE takes another
# bundle, FORMS other forms; PEERS names the other engines.
set -eu
cd "$(dirname "$0")/../.."
for form in ${FORMS:-q4 fp32}; do
  CHATXRAY_FORM=$form go test ./modelrt -run '^$' -bench '^BenchmarkEngine$' -benchtime 1x -count 1 -timeout 20m | grep -v -e '^goos' -e '^goarch' -e '^pkg' -e '^cpu' -e '^Benchmark' -e '^PASS' -e '^ok'
done
sh bench/engine/peers.sh
