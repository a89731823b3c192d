"""Places and devices out of the masks: on which side a finding lies, which devices are outlined."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .grammar import DEVICES

#: Mask name -> the label whose place it gives.
OUTLINED = {"consolidation": "Consolidation", "ground_glass_opacities": "Lung Opacity",
            "pleural_effusion": "Pleural Effusion"}


def place_of(finding: np.ndarray, right: np.ndarray, left: np.ndarray) -> str:
    """A place phrase for a finding's mask, given the masks of the patient's lungs; empty if it
    touches neither. A side counts from a fifth of the finding's area inside the lungs."""
    sides = np.array([(finding & right).sum(), (finding & left).sum()], float)
    if sides.sum() == 0:
        return ""
    share = sides / sides.sum()
    if share.min() >= 0.2:
        return " in both lungs"
    lung, name = (right, "right") if share[0] > share[1] else (left, "left")
    rows = np.flatnonzero(lung.any(1))
    inside = np.argwhere(finding & lung)[:, 0]
    height = (np.median(inside) - rows[0]) / max(1, rows[-1] - rows[0])
    zone = "upper" if height < 0.38 else "mid" if height < 0.62 else "lower"
    return f" in the {name} {zone} lung zone"


def read(folder: Path) -> dict[str, tuple[dict[str, str], tuple[str, ...]]]:
    """Film id -> (label -> place phrase, devices)."""
    from PIL import Image

    by_film: dict[str, set[str]] = {}
    for path in folder.glob("*__*.png"):
        film, structure = path.stem.split("__")
        by_film.setdefault(film, set()).add(structure)
    out = {}
    for film, structures in by_film.items():
        def mask(name: str) -> np.ndarray:
            return np.asarray(Image.open(folder / f"{film}__{name}.png").convert("L")) > 127

        where = {}
        if {"left_lung", "right_lung"} <= structures:
            for name in structures & OUTLINED.keys():
                phrase = place_of(mask(name), mask("right_lung"), mask("left_lung"))
                if phrase:
                    where[OUTLINED[name]] = phrase
        out[film] = (where, tuple(sorted(structures & DEVICES.keys())))
    return out
