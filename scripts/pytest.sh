#!/usr/bin/env bash
# Runs the Python tests of train/ in an environment of its own, cached by the pinned requirements and the Python's version.
set -euo pipefail
cd "$(dirname "$0")/.."

pins=train/requirements-test.txt
[ -f "$pins" ] || pins=train/requirements.txt
python=${PYTHON:-python3}
key=$({ "$python" --version; cat "$pins"; } | sha256sum | cut -c1-16)
env=${XDG_CACHE_HOME:-$HOME/.cache}/chatxray/venv/$key

if [ ! -f "$env/.complete" ]; then
  echo "pytest: installing what $pins names (once; minutes)"
  rm -rf "$env"
  "$python" -m venv "$env"
  "$env/bin/python" -m pip install --quiet --disable-pip-version-check --no-cache-dir --no-compile -r "$pins"
  touch "$env/.complete"
fi
exec "$env/bin/python" -m pytest -q -rs -p no:cacheprovider train/tests "$@"
