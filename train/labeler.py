"""Which labels a report says, by the service's own rule labeler."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

from . import grammar


def heard(reports: list[str], binary: Path) -> tuple[list[dict[str, bool]], str]:
    """Label -> said present, per report, and the name of what read them. ``chatxray label`` reads
    one report a line; without the binary the grammar's own parser stands in, and says so."""
    if not binary.exists():
        return [grammar.parse(r) for r in reports], "the grammar's parser (interim: bin/chatxray is absent)"
    lines = "".join(r.replace("\n", " ") + "\n" for r in reports)
    out = subprocess.run([str(binary), "label"], input=lines, capture_output=True, text=True, check=True).stdout
    states = [json.loads(line) for line in out.splitlines()]
    if len(states) != len(reports):
        raise ValueError(f"{len(reports)} reports, {len(states)} answers of the labeler")
    return [{label: state == "present" for label, state in film.items() if state != "not said"}
            for film in states], "chatxray label"
