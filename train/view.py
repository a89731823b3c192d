"""Stage ``view``: a head on the vision graph that tells lateral films from frontal ones, fitted on the
bundle's own features. Serving asks it about images whose header does not tell their view.

Lateral films come from one set only, and are few: figures are of five folds over patients, all of
that set's frontal films among them, and of ``val``."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pandas as pd
from onnx import helper, numpy_helper

from . import evaluate, export, prepare, reference
from .films import UPSIDE_DOWN
from .settings import SIDE, Places

VIEWS = ("frontal", "lateral")  # order of view_logits
FIGURES = "figures.view.json"
STRENGTH = 0.01  # of the logistic regression, scikit-learn's C
PREFIX = "view."  # of the names of this head's nodes and weights
TOGETHER = 16


def known_films(places: Places) -> pd.DataFrame:
    table = pd.read_csv(places.labels)
    return table[(table["view"] != "unknown") & (table["id"] != UPSIDE_DOWN)].reset_index(drop=True)


def summaries(places: Places, table: pd.DataFrame) -> np.ndarray:
    """[films, 2 * WIDTH]: the first token, and the mean of all, of each film."""
    pixels = np.empty((len(table), SIDE, SIDE), np.float16)
    prepare.through_serving(places, [places.data / "cxr" / name for name in table["file"]], pixels)
    vision = reference.session(places.bundle / "vision.onnx")
    out = []
    for start in range(0, len(table), TOGETHER):
        x = pixels[start:start + TOGETHER].astype(np.float32)[:, None]
        features = vision.run(["image_features"], {"pixel_values": x})[0]
        out.append(np.concatenate([features[:, 0], features.mean(1)], 1))
    return np.concatenate(out)


def fit(x: np.ndarray, lateral: np.ndarray) -> tuple[np.ndarray, float]:
    """Weights and bias of the log-odds of a lateral film."""
    from sklearn.linear_model import LogisticRegression

    mean, spread = x.mean(0), x.std(0) + 1e-6
    model = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=5000).fit((x - mean) / spread, lateral)
    weights = model.coef_[0] / spread
    return weights, float(model.intercept_[0] - weights @ mean)


def rates(lateral: np.ndarray, odds: np.ndarray) -> dict:
    return {"lateral": int(lateral.sum()), "lateral_found": int((lateral & (odds > 0)).sum()),
            "frontal": int((~lateral).sum()), "frontal_kept": int((~lateral & (odds <= 0)).sum()),
            "auroc": round(evaluate.auroc(lateral.astype(float), odds), 4)}


def figures(table: pd.DataFrame, x: np.ndarray, lateral: np.ndarray) -> dict:
    from sklearn.model_selection import GroupKFold

    odds = np.empty(len(x))
    for train, test in GroupKFold(5, shuffle=True, random_state=0).split(x, lateral, table["patient"]):
        weights, bias = fit(x[train], lateral[train])
        odds[test] = x[test] @ weights + bias
    same = (table["set"] == "notes").to_numpy()
    val = (table["split"] == "val").to_numpy()
    weights, bias = fit(x[~val], lateral[~val])
    return {"folds": rates(lateral, odds), "folds_notes": rates(lateral[same], odds[same]),
            "val": rates(lateral[val], x[val] @ weights + bias)}


def attach(model: onnx.ModelProto, weights: np.ndarray, bias: float) -> None:
    """Adds the output view_logits [B, views] to a vision graph, in the place of an earlier one."""
    graph = model.graph
    for kept in (graph.node, graph.initializer, graph.output):
        for item in [i for i in kept if i.name.startswith(PREFIX) or i.name == "view_logits"]:
            kept.remove(item)
    matrix = np.stack([-weights / 2, weights / 2], 1).astype(np.float32)
    graph.initializer.extend([
        numpy_helper.from_array(matrix, PREFIX + "weight"),
        numpy_helper.from_array(np.array([-bias / 2, bias / 2], np.float32), PREFIX + "bias"),
        numpy_helper.from_array(np.array(0, np.int64), PREFIX + "first")])

    def node(op: str, inputs: list[str], output: str, **attributes) -> None:
        graph.node.append(helper.make_node(op, inputs, [output], name=PREFIX + op, **attributes))

    node("Gather", ["image_features", PREFIX + "first"], PREFIX + "token", axis=1)
    node("ReduceMean", ["image_features"], PREFIX + "mean", axes=[1], keepdims=0)
    node("Concat", [PREFIX + "token", PREFIX + "mean"], PREFIX + "pooled", axis=1)
    node("Gemm", [PREFIX + "pooled", PREFIX + "weight", PREFIX + "bias"], "view_logits")
    graph.output.append(helper.make_tensor_value_info("view_logits", onnx.TensorProto.FLOAT, ["B", len(VIEWS)]))
    onnx.checker.check_model(model)


def run(places: Places) -> None:
    table = known_films(places)
    lateral = (table["view"] == "LATERAL").to_numpy()
    x = summaries(places, table)
    found = figures(table, x, lateral)
    val = (table["split"] == "val").to_numpy()
    path = places.bundle / "vision.onnx"
    model = onnx.load(path)
    attach(model, *fit(x[~val], lateral[~val]))
    path.write_bytes(model.SerializeToString(deterministic=True))
    manifest = json.loads((places.bundle / "manifest.json").read_text())
    manifest["vision"]["views"] = list(VIEWS)
    export.seal(places.bundle, manifest)
    places.cached(FIGURES).write_text(json.dumps(found, indent=1))
    print(f"view: {found}")
