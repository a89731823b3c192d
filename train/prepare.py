"""Stage ``prepare``: every frontal film as the tensor that serving would make of it, in one array."""

from __future__ import annotations

import json
import subprocess
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

from . import films
from .settings import PREPROCESS, SIDE, Places

PIXELS = "pixels.npy"  # float16 [films, SIDE, SIDE], in the row order of films.load


def through_serving(places: Places, paths: list[Path], out: np.ndarray) -> None:
    """The tensors that the Go service itself makes, so that training and serving cannot drift."""
    with tempfile.TemporaryDirectory(dir=places.cached("")) as folder:
        spec = Path(folder) / "preprocess.json"
        spec.write_text(json.dumps(PREPROCESS))
        subprocess.run([str(places.chatxray), "preprocess", "--out", folder, "--format", "npy", "--spec", str(spec), "-"],
                       input="".join(f"{p}\n" for p in paths), text=True, check=True)
        for i, path in enumerate(paths):
            out[i] = np.load(Path(folder) / f"{path.stem}.npy").reshape(SIDE, SIDE)


def here(paths: list[Path], out: np.ndarray) -> None:
    """The same definition in Pillow."""
    with ProcessPoolExecutor(2) as pool:
        for i, tensor in enumerate(pool.map(films.tensor_of, paths, chunksize=32)):
            out[i] = tensor


def run(places: Places) -> None:
    target = places.cached(PIXELS)
    known = films.load(places)
    paths = [places.data / "cxr" / name for name in known.table["file"]]
    if target.exists() and np.load(target, mmap_mode="r").shape[0] == len(paths):
        print(f"prepare: {target} is whole, nothing to do")
        return
    started = time.time()
    out = np.empty((len(paths), SIDE, SIDE), np.float16)
    if places.chatxray.exists():
        through_serving(places, paths, out)
    else:
        print(f"prepare: {places.chatxray} is absent; Pillow stands in with the same definition")
        here(paths, out)
    partial = target.with_suffix(".part.npy")
    np.save(partial, out)
    partial.rename(target)
    print(f"prepare: {len(paths)} films in {time.time() - started:.0f} s")
