#!/usr/bin/env bash
# Runs schemathesis, pinned, in an environment of its own that is cached by its requirements and the Python's version.
set -euo pipefail
cd "$(dirname "$0")/../e2e/schemathesis"

python=${PYTHON:-python3}
key=$({ "$python" --version; cat requirements.txt; } | sha256sum | cut -c1-16)
env=${XDG_CACHE_HOME:-$HOME/.cache}/chatxray/venv/schemathesis-$key

if [ ! -f "$env/.complete" ]; then
  rm -rf "$env"
  "$python" -m venv "$env"
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile -r requirements.txt
  touch "$env/.complete"
fi
export PYTHONDONTWRITEBYTECODE=1
exec "$env/bin/schemathesis" "$@"
