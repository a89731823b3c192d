"""The films of the data pack: which may be used, what is known of each, and their pixels."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
import pandas as pd

from .settings import FINDINGS, MEAN, SIDE, STD, Places

UPSIDE_DOWN = "nih_00003490-011"

#: Further targets of the encoder only. They have no slot in the closed list.
AUXILIARY = ("Infiltration", "Nodule", "Mass", "Emphysema", "Fibrosis", "TB")
TARGETS = FINDINGS + AUXILIARY

_COLUMN = {
    "No Finding": "No_Finding", "Lung Opacity": "Opacity", "Pleural Effusion": "Effusion",
    "Pleural Other": "Pleural_Thickening",
}


def truth(table: pd.DataFrame) -> np.ndarray:
    """[films, targets]: 1 present, 0 absent, NaN unknown. A blank stays unknown."""
    columns = []
    for name in TARGETS:
        if name == "Lung Lesion":  # nodule or mass
            nodule, mass = table["Nodule"], table["Mass"]
            value = np.where((nodule == 1) | (mass == 1), 1.0,
                             np.where((nodule == 0) & (mass == 0), 0.0, np.nan))
        else:
            value = table[_COLUMN.get(name, name)].to_numpy(float)
        columns.append(value)
    return np.stack(columns, 1).astype(np.float32)


def of_development(patient: str) -> bool:
    """One train patient in twelve is kept out of all fitting: every choice is made on these."""
    return zlib.crc32(patient.encode()) % 12 == 0


@dataclass
class Films:
    """Frontal, upright films. ``part`` is train, dev (cut from train by patient) or val."""

    table: pd.DataFrame
    truth: np.ndarray

    def rows(self, part: str) -> np.ndarray:
        return np.flatnonzero(self.table["part"].to_numpy() == part)

    def fair(self) -> np.ndarray:
        """Truth without the (set, label) pairs that have too few of one class in train: such a
        label would only teach the encoder to tell the sets apart."""
        out = self.truth.copy()
        sets, train = self.table["set"].to_numpy(), (self.table["part"] != "val").to_numpy()
        for name in np.unique(sets):
            of_set = sets == name
            for j in range(out.shape[1]):
                seen = out[of_set & train, j]
                if (seen == 1).sum() < 5 or (seen == 0).sum() < 5:
                    out[of_set, j] = np.nan
        return out


def load(places: Places) -> Films:
    table = pd.read_csv(places.labels)
    table = table[(table["view"] != "LATERAL") & (table["id"] != UPSIDE_DOWN)].reset_index(drop=True)
    dev = table["patient"].map(of_development) & (table["split"] == "train")
    table["part"] = np.where(table["split"] == "val", "val", np.where(dev, "dev", "train"))
    return Films(table, truth(table))


def tensor_of(path) -> np.ndarray:
    """What serving makes of an upright gray file, float32 [SIDE, SIDE]: gray / 255, squashed by an
    antialiased bicubic (Pillow, mode F), then (x - mean) / std."""
    from PIL import Image

    gray = np.asarray(Image.open(path).convert("L"), np.float32) / 255
    small = Image.fromarray(gray, mode="F").resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    return (np.asarray(small, np.float32) - MEAN) / STD
