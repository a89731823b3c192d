"""The view head in the graph gives what it was fitted to give, and can be put there again."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
import onnx  # noqa: E402

from train import view  # noqa: E402
from train.encoder import Encoder  # noqa: E402
from train.graphs import vision_graph  # noqa: E402
from train.reference import session  # noqa: E402
from train.settings import FINDINGS, SIDE, WIDTH  # noqa: E402


def test_fit_tells_two_kinds_apart():
    rng = np.random.default_rng(0)
    lateral = np.arange(200) % 10 == 0
    x = rng.standard_normal((200, 2 * WIDTH)).astype(np.float32)
    x[lateral, 3] += 8
    weights, bias = view.fit(x, lateral)
    assert np.array_equal(x @ weights + bias > 0, lateral)
    assert view.rates(lateral, x @ weights + bias) == {
        "lateral": 20, "lateral_found": 20, "frontal": 180, "frontal_kept": 180, "auroc": 1.0}
    assert view.rates(lateral, -(x @ weights + bias))["auroc"] == 0.0


def test_attach_adds_the_log_odds(tmp_path):
    torch.manual_seed(2)
    path = tmp_path / "vision.onnx"
    vision_graph(Encoder().eval(), len(FINDINGS), path)
    pixels = np.random.default_rng(3).standard_normal((2, 1, SIDE, SIDE)).astype(np.float32)
    before = session(path).run(["image_features", "findings_logits"], {"pixel_values": pixels})
    for seed in (4, 5):  # the second takes the place of the first
        weights = np.random.default_rng(seed).standard_normal(2 * WIDTH) / WIDTH
        model = onnx.load(path)
        view.attach(model, weights, 0.25)
        path.write_bytes(model.SerializeToString())
    features, findings, logits = session(path).run(None, {"pixel_values": pixels})
    assert np.array_equal(features, before[0]) and np.array_equal(findings, before[1])
    odds = np.concatenate([features[:, 0], features.mean(1)], 1) @ weights + 0.25
    assert np.abs(logits[:, 1] - logits[:, 0] - odds).max() < 1e-3
