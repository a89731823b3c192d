#!/usr/bin/env bash
# What evidence is worth: AUROC on sentences planted among true ones, on the data pack's val films (train/planted.py). Python: CHATXRAY_PYTHON,
# with train/requirements.txt; else the one that the Python tests run with.
set -euo pipefail
cd "$(dirname "$0")/../.."
[ -d "${CHATXRAY_DATA:-../shared/data}/cxr" ] || { echo "evidence: ../shared absent, nothing to measure on"; exit 0; }
python=${CHATXRAY_PYTHON:-}
if [ -z "$python" ]; then
  python=$(find "${XDG_CACHE_HOME:-$HOME/.cache}/chatxray/venv" -path '*/bin/python' 2>/dev/null | head -n 1)
  [ -n "$python" ] || { echo "evidence: no Python environment: run scripts/pytest.sh once" >&2; exit 1; }
fi
[ -x bin/chatxray ] || make build
exec "$python" -m train planted
