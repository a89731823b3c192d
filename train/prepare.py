"""Stage ``prepare``: every frontal film as the tensor that serving would make of it, in one array."""

from __future__ import annotations

import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from . import films
from .settings import SIDE, Places

PIXELS = "pixels.npy"  # float16 [films, SIDE, SIDE], in the row order of films.load


def through_serving(binary: Path, paths: list[Path]) -> np.ndarray:
    """The tensors that the Go service itself makes (``chatxray preprocess``)."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([str(binary), "preprocess", "--out", folder, "--format", "npy",
                        *map(str, paths)], check=True)
        return np.stack([np.load(Path(folder) / f"{p.stem}.npy").reshape(SIDE, SIDE) for p in paths])


def run(places: Places) -> None:
    target = places.cached(PIXELS)
    known = films.load(places)
    paths = [places.data / "cxr" / name for name in known.table["file"]]
    if target.exists() and np.load(target, mmap_mode="r").shape[0] == len(paths):
        print(f"prepare: {target} is whole, nothing to do")
        return
    started = time.time()
    with ProcessPoolExecutor(2) as pool:
        out = np.empty((len(paths), SIDE, SIDE), np.float16)
        for i, tensor in enumerate(pool.map(films.tensor_of, paths, chunksize=32)):
            out[i] = tensor
    partial = target.with_suffix(".part.npy")
    np.save(partial, out)
    partial.rename(target)
    print(f"prepare: {len(paths)} films in {time.time() - started:.0f} s")
