"""Stage ``regraph`` (not part of ``all``): the language model's graphs of a bundle written anew, after a change of
graphs.py. What was trained stays as it is; the revision is this package's."""

from __future__ import annotations

import json

from safetensors.numpy import load_file

from . import export
from .base import Base, gguf_file
from .settings import Places


def run(places: Places) -> None:
    base = Base(gguf_file(places))
    path = places.bundle / "manifest.json"
    manifest = json.loads(path.read_text())
    layout = export.language_graphs(places.bundle, base)
    lora = load_file(str(places.bundle / manifest["base"]["lora"]))
    manifest["base"]["weights_sha256"] = export.write_weights(base, layout, lora, None)
    manifest["base"]["weights_bytes"] = layout.end
    manifest["revision"] = export.REVISION
    export.seal(places.bundle, manifest)
    print(f"regraph: {places.bundle} {export.REVISION}, {layout.end} bytes of weights")
