#!/usr/bin/env bash
# Runs the Go benchmarks that match the pattern, then each comparison bench/*.sh whose name matches it.
set -euo pipefail
cd "$(dirname "$0")/.."
pattern=${1:-.}

go test -run '^$' -bench "$pattern" -benchmem ./...
for script in bench/*.sh; do
  [ -f "$script" ] || continue
  if [[ $script =~ $pattern ]]; then
    echo "bench: $script"
    bash "$script"
  fi
done
