"""Stage ``features``: what the frozen encoder makes of every film, plain and augmented."""

from __future__ import annotations

import time

import numpy as np
import torch

from . import films, prepare
from .encoder import Encoder
from .fit_encoder import WEIGHTS, augment
from .settings import FEATURE_TOKENS, FINDINGS, SIDE, WIDTH, Places

PLAIN = "features.npy"             # float16 [films, tokens, WIDTH]
VARIED = "features.augmented.npy"  # float16 [COPIES, films, tokens, WIDTH]; train films only
COPIES = 2


def trained_encoder(places: Places) -> Encoder:
    """The trained encoder, its weights rounded to float16 as the bundle stores them."""
    model = Encoder()
    state = torch.load(places.cached(WEIGHTS), weights_only=False)["model"]
    model.load_state_dict({k: v.half().float() if v.dtype == torch.float32 and "running" not in k else v
                           for k, v in state.items()})
    return model.eval()


def run(places: Places) -> None:
    if places.cached(VARIED).exists() and places.cached(PLAIN).exists():
        print("features: whole, nothing to do")
        return
    known = films.load(places)
    pixels = np.load(places.cached(prepare.PIXELS), mmap_mode="r")
    encoder = trained_encoder(places).to(memory_format=torch.channels_last)
    coarse = torch.from_numpy(known.table["set"].isin(["nih64", "tb128"]).to_numpy().copy())
    rng, started = torch.Generator().manual_seed(11), time.time()

    def encode(rows: np.ndarray, vary: bool, out: np.ndarray, what: str) -> None:
        with torch.inference_mode():
            for start in range(0, len(rows), 32):
                part = rows[start:start + 32]
                x = torch.from_numpy(pixels[part].astype(np.float32))[:, None]
                if vary:
                    x = augment(x, coarse[part], SIDE, rng)
                out[part] = encoder.features(x.contiguous(memory_format=torch.channels_last)).half().numpy()
        print(f"features: {what}, {len(rows)} films, {time.time() - started:.0f} s", flush=True)

    shape = (len(known.table), FEATURE_TOKENS, WIDTH)
    plain = np.zeros(shape, np.float16)
    speaks = (~np.isnan(known.truth[:, :len(FINDINGS)])).any(1)  # the others have nothing to be written
    encode(np.flatnonzero(speaks), False, plain, "plain")
    np.save(places.cached(PLAIN), plain)
    varied = np.zeros((COPIES, *shape), np.float16)
    for copy in range(COPIES):
        encode(np.intersect1d(known.rows("train"), np.flatnonzero(speaks)), True, varied[copy],
               f"augmented copy {copy + 1}")
    partial = places.cached("features.part.npy")
    np.save(partial, varied)
    partial.rename(places.cached(VARIED))


def decoy_rows(places: Places) -> list[int]:
    """Two typical train films of the NIH set (free use with attribution) of two patients: the normal
    PA film and the AP film with opacity whose features lie nearest the mean of their kind."""
    known = films.load(places)
    plain, table = np.load(places.cached(PLAIN), mmap_mode="r"), known.table
    train = (table["part"] == "train") & (table["set"] == "nih")
    chosen: list[int] = []
    for wanted in ((table["No_Finding"] == 1) & (table["view"] == "PA"),
                   (table["Opacity"] == 1) & (table["view"] == "AP")):
        rows = np.flatnonzero(train & wanted & ~table["patient"].isin(table["patient"].iloc[chosen]))
        summary = plain[rows].astype(np.float32).mean(1)
        chosen.append(int(rows[((summary - summary.mean(0)) ** 2).sum(1).argmin()]))
    return chosen


def decoys(places: Places) -> np.ndarray:
    return np.load(places.cached(PLAIN), mmap_mode="r")[decoy_rows(places)]
