"""``python -m train families``: tiny bundles of every family of models, with random weights, and golden values.

Each comes from reference code that somebody else wrote; its module says which. What the reference makes of
two pictures (image features, prompt ids, first logits, 64 greedy tokens) is the golden file beside the bundle, and
the tests of package modelrt compare; chats.py adds chat templates and conversations.
"""

from __future__ import annotations

import importlib
import os
from pathlib import Path

NAMES = ("llava", "qwen2vl", "gemma3", "fuyu", "blip2", "minigpt4", "llama", "qwenvl", "chatglm")
TARGET = Path("modelrt/testdata/families")


def run(places) -> None:
    for name in os.environ.get("CHATXRAY_FAMILIES", ",".join(NAMES)).split(","):
        for one, make in importlib.import_module(f".{name}", __package__).ONES.items():
            make(TARGET)
            importlib.import_module(".chats", __package__).make(TARGET, one)
