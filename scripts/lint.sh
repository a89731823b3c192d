#!/usr/bin/env bash
# Checks format, Go code, scripts, chart and Dockerfile. Runs every check, then fails if one did.
set -uo pipefail
cd "$(dirname "$0")/.." || exit

failed=()
check() {
  local name=$1
  shift
  echo "lint: $name"
  "$@" || failed+=("$name")
}

formatted() {
  local bad
  bad=$(git ls-files -co --exclude-standard '*.go' | xargs -r gofmt -l) || return 1
  [ -z "$bad" ] || { printf 'not formatted, run make fmt:\n%s\n' "$bad"; return 1; }
}
chart_tests() {
  local linter
  linter=$(bash scripts/tool.sh golangci-lint) || return 1
  go -C charts vet ./... && (cd charts && "$linter" run ./...)
}
chart() {
  local helm
  helm=$(bash scripts/tool.sh helm) || return 1
  for values in charts/chatxray/ci/*.yaml; do
    "$helm" lint --strict --values "$values" charts/chatxray || return 1
    "$helm" template test charts/chatxray --kube-version 1.33.0 --values "$values" >/dev/null || return 1
  done
}

check gofmt formatted
check "go vet" go vet ./... ./.ci/testlog ./.ci/notices
check golangci-lint "$(bash scripts/tool.sh golangci-lint)" run ./... ./.ci/testlog ./.ci/notices
check "golangci-lint charts" chart_tests
check "helm lint" chart
check Dockerfile "$(bash scripts/tool.sh hadolint)" Dockerfile
check scripts "$(bash scripts/tool.sh shellcheck)" scripts/*.sh .ci/run

[ "${#failed[@]}" = 0 ] || { echo "lint: failed: ${failed[*]}" >&2; exit 1; }
echo "lint: no finding"
