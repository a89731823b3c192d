#!/usr/bin/env python3
"""Makes the golden values of boxes for the tests of package modelrt: what tokenization_qwen.py of Qwen-VL-Chat finds in texts and draws on the
latest picture.

    boxes.py REFERENCE OUT.json

REFERENCE is a folder with tokenization_qwen.py and qwen.tiktoken (Tongyi Qianwen licence; never committed; github.com/x1ngzai/Qwen-VL-Chat-Int4 at 1cd721a2 holds
them). Tokenizer, parser and arithmetic are the file's; its drawing on a canvas is replaced by noting what is drawn. Needs tiktoken, numpy, pillow, requests.
"""
import hashlib
import json
import pathlib
import sys
import tempfile
import types

import numpy as np
from PIL import Image

SHA256 = {"tokenization_qwen.py": "35939f9fa6090d50e11f2ee664dd4239ad156b856d5e33ee6da5cd4990b41ffa",
          "qwen.tiktoken": "6cf5f2a2560a7d581548aeb0c31c6a60de2d3e873152346e421affc871699be4"}
TEXTS = [
    "<ref>the heart</ref><box>(536,509),(588,602)</box>",
    "An <ref> opacity </ref><box>(0,0),(999,999)</box> at the base.",
    "<ref>ribs</ref><box>(10,20),(30,400)</box><box>(500,21),(733,402)</box>",
    "Nothing is drawn here.",
    "<box>(100,200),(300,400)</box> alone",
    "<ref>left</ref><box>(1,2),(333,444)</box> and <ref>right</ref><box>(667,2),(998,444)</box>.",
    "<ref>said</ref> without a box, then <box>(5,6),(7,8)</box>",
]
PICTURES = [(448, 448), (640, 480), (97, 1333)]  # width, height

folder, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
for name, digest in SHA256.items():
    if hashlib.sha256((folder / name).read_bytes()).hexdigest() != digest:
        sys.exit(f"boxes.py: {folder / name} is another file")


class Anything(types.ModuleType):
    """Stands for what only the canvas needs."""

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {"__init__": lambda self, *a, **k: None})


for name in ("matplotlib", "matplotlib.colors", "matplotlib.font_manager", "matplotlib.figure", "matplotlib.backends", "matplotlib.backends.backend_agg", "torch",
             "transformers", "transformers.utils"):
    sys.modules[name] = Anything(name)
sys.modules["matplotlib"].__path__ = sys.modules["matplotlib.backends"].__path__ = []
sys.modules["matplotlib"].colors = types.SimpleNamespace(TABLEAU_COLORS={"blue": 0})
scope = types.ModuleType("tokenization_qwen")
sys.modules["tokenization_qwen"] = scope
exec(compile((folder / "tokenization_qwen.py").read_text(), "tokenization_qwen.py", "exec"), scope.__dict__)


class Noted:
    def __init__(self, image):
        self.output = []

    def draw_box(self, corners, **_):
        self.output.append({"corners": corners})

    def draw_text(self, label, *_, **__):
        self.output[-1]["label"] = label


scope.Visualizer = Noted
tokenizer = scope.QWenTokenizer(str(folder / "qwen.tiktoken"))
cases = []
with tempfile.TemporaryDirectory() as places:
    for width, height in PICTURES:
        path = f"{places}/{width}.png"
        Image.fromarray(np.zeros((height, width), np.uint8)).save(path)
        for text in TEXTS:
            history = [(f"Picture 1: <img>{places}/none.png</img>\n", "Yes."), (f"Picture 2: <img>{path}</img>\nWhere?", None)]
            drawn = tokenizer.draw_bbox_on_latest_picture(text, history) or []
            cases.append({"width": width, "height": height, "text": text, "boxes": drawn})
out.write_text(json.dumps({"reference": "tokenization_qwen.py of Qwen-VL-Chat: to_list_format, _fetch_latest_picture, _fetch_all_box_with_ref, draw_bbox_on_latest_picture",
                           "cases": cases}, indent=1) + "\n")
