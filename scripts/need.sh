#!/usr/bin/env bash
# Says which of the named programs are missing, and how to get them on Debian.
set -euo pipefail
missing=0
for program in "$@"; do
  command -v "$program" >/dev/null && continue
  case $program in
    go) hint="install Go $(awk '/^go /{print $2}' go.mod) or newer" ;;
    cc) hint='apt-get install gcc libc6-dev' ;;
    python3) hint='apt-get install python3 python3-pip' ;;
    *) hint="apt-get install $program" ;;
  esac
  echo "$program is not in PATH: $hint" >&2
  missing=1
done
exit "$missing"
