"""Stage ``calibrate``: what evidence is worth, as a curve in the bundle, out of the planted sentences.

The curve is isotonic: the share of true sentences by the fall of their likelihood. Its Brier score and calibration error
are of five folds over patients, each sentence judged by a curve that saw no film of its patient. It goes into the bundle only where it
tells true from false better than a coin, by the whole interval of its Brier score; else the bundle stays uncalibrated."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np

from . import evaluate, export, planted
from .evaluate import auroc, interval
from .settings import Places

FOLDS, BINS, POINTS = 5, 10, 12


def isotonic(drop: np.ndarray, truth: np.ndarray):
    from sklearn.isotonic import IsotonicRegression

    return IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(drop, truth)


def curve(drop: np.ndarray, truth: np.ndarray) -> tuple[list[float], list[float]]:
    """POINTS at quantiles of the drop, fitted to the means of equal parts: few enough that no point stands for a handful of sentences."""
    order = np.argsort(drop, kind="stable")
    parts = np.array_split(order, POINTS)
    x, y = np.array([drop[p].mean() for p in parts]), np.array([truth[p].mean() for p in parts])
    smooth = isotonic(x, y).predict(x)
    keep = np.concatenate([[True], np.diff(x) > 1e-6])
    return [round(float(v), 4) for v in x[keep]], [round(float(v), 4) for v in smooth[keep]]


def at(points: tuple[list[float], list[float]], drop: np.ndarray) -> np.ndarray:
    return np.interp(drop, *points)


def folds(kept: list[dict], pair: np.ndarray, film: np.ndarray) -> np.ndarray:
    """A fold for each sentence, that of its film's patient: evidence is of that film and no other. Who has many comes first, into the smallest fold."""
    patients = [kept[i]["patients"][f] for i, f in zip(pair, film)]
    sizes = Counter(patients)
    load, fold = [0] * FOLDS, {}
    for name in sorted(sizes, key=lambda n: (-sizes[n], n)):
        fold[name] = int(np.argmin(load))
        load[fold[name]] += sizes[name]
    return np.array([fold[name] for name in patients])


def calibration_error(truth: np.ndarray, said: np.ndarray) -> float:
    """Mean distance of said and true shares over BINS parts of equal size."""
    return float(sum(len(p) * abs(truth[p].mean() - said[p].mean()) for p in np.array_split(np.argsort(said, kind="stable"), BINS)) / len(said))


def out_of_fold(kept: list[dict]) -> dict:
    truth, drop, pair, present = planted.flat(kept, planted.drop)
    version = 1 - present.astype(int)
    film = np.where(truth == 1, version, 1 - version)
    fold = folds(kept, pair, film)
    said = np.empty(len(truth))
    for k in range(FOLDS):
        mine = fold == k
        if mine.any():
            said[mine] = at(curve(drop[~mine], truth[~mine]), drop[mine])
    patient = np.array([kept[i]["patients"][f] for i, f in zip(pair, film)])
    brier = [float(((said[s] - truth[s]) ** 2).mean()) for s in evaluate.resamples(patient)]
    sizes = np.bincount(fold, minlength=FOLDS)
    return {"auroc": round(auroc(truth, drop), 3), "brier": round(float(((said - truth) ** 2).mean()), 4), "brier_interval": interval(brier),
            "ece": round(calibration_error(truth, said), 4), "folds": sizes.tolist()}


def run(places: Places, part: str = "val") -> None:
    kept = planted.weighed(places, part)
    truth, drop, _, _ = planted.flat(kept, planted.drop)
    held = out_of_fold(kept)
    films = len({i for p in kept for i in (p["present"], p["absent"])})
    manifest = json.loads((places.bundle / "manifest.json").read_text())
    honest = held["brier_interval"][1] < 0.25 and max(held["folds"]) < 0.5 * sum(held["folds"])
    manifest["evidence"].pop("calibration", None)
    if honest:
        x, y = curve(drop, truth)
        manifest["evidence"]["calibration"] = {
            "set": f"the data pack's {part} films", "sentences": len(truth), "films": films,
            "auroc": held["auroc"], "brier": held["brier"], "ece": held["ece"], "drop": x, "true_share": y}
    export.seal(places.bundle, manifest)
    places.cached(f"figures.calibrate.{part}.json").write_text(json.dumps(held | {"in_bundle": honest}, indent=1))
    print(f"calibrate: {len(truth)} sentences of {films} films; out of fold Brier {held['brier']} {held['brier_interval']} (a coin: 0.25), "
          f"calibration error {held['ece']}, AUROC {held['auroc']}, folds {held['folds']}: "
          + ("the curve is in the bundle" if honest else "no better than a coin, so that the bundle stays uncalibrated"))
