#!/usr/bin/env bash
# Runs the Go benchmarks that match the pattern, then each comparison bench/NAME (its run.sh, else its Go program) that does.
set -euo pipefail
cd "$(dirname "$0")/.."
pattern=${1:-.}

go test -run '^$' -bench "$pattern" -benchmem ./...
for dir in bench/*/; do
  [[ $dir =~ $pattern ]] || continue
  if [ -f "$dir/run.sh" ]; then
    echo "bench: ${dir}run.sh"
    bash "$dir/run.sh"
  elif [ -f "$dir/main.go" ]; then
    echo "bench: go run ./$dir"
    go run "./$dir"
  fi
done
