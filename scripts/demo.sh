#!/usr/bin/env bash
# Shows the product: starts the service on loopback, sends it a study over STOW-RS, waits, and shows the drafted report.
#   STUDY=path  a DICOM file, or a folder with one study; else a radiograph of ../shared/data, else a phantom
#   KEEP=1      leaves the service running
# Everything it writes is in demo-out/TIME.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=bin/chatxray
keep=${KEEP:-}
study=${STUDY:-}
out=demo-out/$(date +%Y%m%d-%H%M%S)-$$
server=

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
[ -t 1 ] || say() { printf '\n%s\n' "$*"; }
fail() { printf 'demo: %s\n' "$*" >&2; exit 1; }

finish() {
  local code=$?
  trap - EXIT
  if [ -n "$server" ] && kill -0 "$server" 2>/dev/null && { [ "$code" != 0 ] || [ -z "$keep" ]; }; then
    kill "$server" 2>/dev/null || true
    wait "$server" 2>/dev/null || true
  fi
  if [ "$code" != 0 ] && [ -s "$out/serve.log" ]; then
    printf '\nThe last lines of the service, from %s/serve.log:\n' "$out" >&2
    tail -n 15 "$out/serve.log" >&2
  fi
  exit "$code"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

[ -x "$bin" ] || fail "$bin is missing: run make build"
[ -z "$study" ] || [ -e "$study" ] || fail "STUDY=$study does not exist"
mkdir -p "$out"

chest=../shared/data/dicom/chest
if [ -n "$study" ]; then
  say "Study: $study"
elif [ -d "$chest" ]; then
  study=$chest/RG1_JLSN.dcm
  [ -f "$study" ] || study=$(find "$chest" -name '*.dcm' | sort | head -n 1)
  [ -n "$study" ] || fail "$chest holds no DICOM file"
  say "Study: the chest radiograph $study"
else
  study=$out/phantom.dcm
  "$bin" phantom --seed 7 --effusion right --out "$study"
  say "Study: a synthetic phantom, $study (no STUDY=path given, no ../shared/data here). Its report says nothing about a patient."
fi

say "Starting the service on loopback: files and SQLite in $out/data, Redis inside the process, CUDA only where it loads"
( trap '' HUP; exec "$bin" serve --listen 127.0.0.1:0 --port-file "$out/port" --data "$out/data" ) >"$out/serve.log" 2>&1 </dev/null &
server=$!
for ((i = 0; i < 1200; i++)); do
  [ -s "$out/port" ] && break
  kill -0 "$server" 2>/dev/null || { server=; fail "the service did not start"; }
  sleep 0.1
done
[ -s "$out/port" ] || fail "the service did not listen within two minutes"
url=http://127.0.0.1:$(<"$out/port")/dicom-web
echo "$url"

say "Sending over STOW-RS"
"$bin" send "$url" "$study" | tee "$out/sent.txt"
mapfile -t uids < <(awk '$1 == "study" {print $2}' "$out/sent.txt" | sort -u)
[ "${#uids[@]}" -gt 0 ] || fail "nothing was sent that belongs to a study"

for uid in "${uids[@]}"; do
  say "Waiting for the report of study $uid"
  "$bin" show "$url" "$uid" --wait 10m --out "$out/report"
done

if [ -n "$keep" ]; then
  say "The service keeps running (process $server): $url"
  echo "Stop it with: kill $server"
  disown "$server"
else
  say "Stopping the service"
fi
