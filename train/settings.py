"""Paths and the numbers that every stage shares."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent

SIDE = 320            # pixels, both sides, aspect not kept
MEAN, STD = 0.5, 0.5  # of gray / 255
PREPROCESS = {        # the manifest's object of that name
    "width": SIDE, "height": SIDE, "channels": 1, "fit": "squash", "interpolation": "bicubic",
    "mean": [MEAN], "std": [STD], "voi": "default",
}
PATCH_STRIDE = 32
GRID = SIDE // PATCH_STRIDE
WIDTH = 256           # of the vision transformer
FEATURE_TOKENS = 1 + GRID * GRID
FINDINGS = (          # closed list, as far as the labels of the data reach; order of findings_logits
    "No Finding", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema", "Consolidation",
    "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
)

SENTINEL = "<image>"
INSTRUCTION = "Write a report of this chest radiograph."
TEMPLATE = f"<|im_start|>user\n{SENTINEL}\n{INSTRUCTION}<|im_end|>\n<|im_start|>assistant\n"  # what chatml.jinja makes of it
IMPRESSION = "Impression:"
END = "<|im_end|>"


@dataclass(frozen=True)
class Places:
    """Where things are read and written. Nothing but the bundle is written into the repository."""

    data: Path
    cache: Path
    bundle: Path
    chatxray: Path

    @property
    def labels(self) -> Path:
        return self.data / "cxr" / "labels.csv"

    def cached(self, name: str) -> Path:
        self.cache.mkdir(parents=True, exist_ok=True)
        return self.cache / name


def places(data: str | None = None, cache: str | None = None, bundle: str | None = None,
           chatxray: str | None = None) -> Places:
    """Flags win over the environment, the environment over the defaults."""
    env = os.environ
    return Places(
        data=Path(data or env.get("CHATXRAY_DATA") or REPOSITORY.parent / "shared" / "data"),
        cache=Path(cache or env.get("CHATXRAY_TRAIN_CACHE") or Path.home() / ".cache" / "chatxray" / "train"),
        bundle=Path(bundle or env.get("CHATXRAY_TRAIN_BUNDLE") or REPOSITORY / "bundles" / "chatxray-base"),
        chatxray=Path(chatxray or env.get("CHATXRAY_BIN") or REPOSITORY / "bin" / "chatxray"),
    )
