"""Stage ``regraph`` (not part of ``all``): the language model's graphs of a bundle written anew, after a change of
graphs.py. What was trained stays as it is. CHATXRAY_TRAIN_GGUF names another base model than the default bundle's."""

from __future__ import annotations

import json
import os
from pathlib import Path

from . import adapters, export
from .base import Base, gguf_file
from .settings import Places


def run(places: Places) -> None:
    own = os.environ.get("CHATXRAY_TRAIN_GGUF")
    base = Base(Path(own) if own else gguf_file(places))
    path = places.bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    lora = adapters.read(places.bundle / adapters.FOLDER / manifest["base"]["adapter"])
    for stale in [*places.bundle.glob("*embed*.onnx"), *places.bundle.glob("decoder*.onnx"), *places.bundle.glob("layout*.gz")]:
        stale.unlink()
    forms = export.language_forms(places.bundle, base, lora, manifest["decoder"]["max_length"])
    manifest["graphs"] = {name: manifest["graphs"][name] for name in ("vision", "adapter")}
    manifest["decoder"]["rope_theta"] = base.theta
    manifest["base"] = {**manifest["base"], "sha256": adapters.sha256(base.path), "forms": forms}
    if not own:
        manifest["revision"] = export.REVISION
    export.seal(places.bundle, manifest)
    print(f"regraph: {places.bundle} {manifest['revision']}: " + ", ".join(f"{f['name']} {f['weights_bytes']} bytes" for f in forms))
