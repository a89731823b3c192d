#!/usr/bin/env bash
# All tests: Go with the race detector (end to end among them), then Python's. Ends with every skipped test and its reason.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

mkdir -p dist/test
rm -f dist/test/*
failed=0
results=(dist/test/go.json)

echo "test: go vet"
go vet ./... ./.ci/testlog ./.ci/notices || failed=1
go -C charts vet ./... || failed=1

echo "test: go test -race"
go build -o dist/test/testlog ./.ci/testlog || exit 1
both() { # the product, then the chart, whose tests are a module of their own (charts/go.mod): the product needs no types of Kubernetes
  go test -race -timeout 60m -json ./... ./.ci/testlog ./.ci/notices
  local status=$?
  go -C charts test -timeout 30m -json ./... && return "$status"
}
both | dist/test/testlog go dist/test/go.json || failed=1

if [ -d train/tests ]; then
  echo "test: pytest train/tests"
  results+=(dist/test/pytest.xml)
  bash scripts/pytest.sh --junit-xml=dist/test/pytest.xml || failed=1
fi

echo
present=()
for file in "${results[@]}"; do
  [ -s "$file" ] || { echo "test: $file was not written" >&2; failed=1; continue; }
  present+=("$file")
done
dist/test/testlog skips "${present[@]}" || failed=1
[ "$failed" = 0 ] || { echo "test: FAILED" >&2; exit 1; }
echo "test: all passed"
