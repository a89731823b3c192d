#!/usr/bin/env python3
"""Writes golden.json beside itself: blocks dequantised by PyPI's gguf, activations and norms as PyTorch has them in float64, and products with x rounded
to 8 bits. Needs gguf and torch."""
import json
import pathlib

import numpy as np
import torch
import torch.nn.functional as F
from gguf import GGMLQuantizationType, quants

rng = np.random.default_rng(7)
out = {"blocks": {}, "before": {}}
for kind, size in (("Q4_1", 20), ("Q8_0", 34)):
    rows = rng.standard_normal((3, 96)).astype(np.float32) * np.array([[1], [30], [1e-5]], np.float32)  # the last: subnormal scales
    raw = quants.quantize(rows, GGMLQuantizationType[kind])
    back = quants.dequantize(raw, GGMLQuantizationType[kind])
    assert raw.shape == (3, 3 * size)
    out["blocks"][kind] = {"raw": raw.tobytes().hex(), "values": back.tolist()}

x = np.concatenate([np.linspace(-6, 6, 41), [0, -0.0, 20, -20, 88, -88, 1e-20, 3e4]]).astype(np.float32)
up = rng.standard_normal(len(x)).astype(np.float32)
scale, shift = (rng.standard_normal(len(x)).astype(np.float32) for _ in range(2))
wide, gate = torch.from_numpy(x).double(), torch.from_numpy(up).double()
norm = torch.from_numpy(x[:41]).double()
s, b = (torch.from_numpy(v[:41]).double() for v in (scale, shift))
out.update(x=x.tolist(), up=up.tolist(), scale=scale.tolist(), shift=shift.tolist(), epsilon=0.5)
out["before"] = {name: value.tolist() for name, value in {
    "rms_norm": F.rms_norm(norm, (41,), s, 0.5),
    "layer_norm": F.layer_norm(norm, (41,), s, b, 0.5),
    "silu_gate": F.silu(wide) * gate,
    "gelu_gate": F.gelu(wide) * gate,
    "gelu_tanh_gate": F.gelu(wide, approximate="tanh") * gate,
    "gelu": F.gelu(wide),
    "gelu_tanh": F.gelu(wide, approximate="tanh"),
    "quick_gelu": wide * torch.sigmoid(1.702 * wide),
    "relu": F.relu(wide),
}.items()}


def eight(raw: np.ndarray, kind: str, x: np.ndarray) -> list:
    """Products of rows of x with rows of blocks as linear.h says; whole numbers are exact, each float32 is rounded once from float64."""
    f32 = lambda v: np.asarray(v, np.float64).astype(np.float32).astype(np.float64)
    blocks = raw.reshape(len(raw), -1, 20 if kind == "Q4_1" else 34)
    halves = blocks[..., :4].copy().view(np.float16).astype(np.float64)
    if kind == "Q4_1":
        d, m, q = halves[..., 0], halves[..., 1], np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], -1).astype(np.float64)
    else:
        d, m, q = halves[..., 0], 0 * halves[..., 0], blocks[..., 2:].copy().view(np.int8).astype(np.float64)
    parts = x.reshape(len(x), -1, 32).astype(np.float64)
    most = np.abs(parts).max(-1)
    scale, inverse = f32(most / 127), f32(127 / most)
    bytes_ = np.rint(parts * inverse[..., None])
    y = np.zeros((len(x), len(raw)))
    for b in range(blocks.shape[1]):
        dots = bytes_[:, b] @ q[:, b].T
        y = f32(d[:, b] * f32(dots * scale[:, b, None]) + y)
        y = f32(m[:, b] * f32(scale[:, b] * bytes_[:, b].sum(-1))[:, None] + y)
    return y.tolist()


x = (np.random.default_rng(8).standard_normal((2, 96)) * np.repeat([3, 0.01, 200], 32)).astype(np.float32)
raws = {kind: np.frombuffer(bytes.fromhex(b["raw"]), np.uint8).reshape(3, -1) for kind, b in out["blocks"].items()}
out["eight"] = {"x": x.tolist(), "y": {kind: eight(raw, kind, x) for kind, raw in raws.items()}}
pathlib.Path(__file__).with_name("golden.json").write_text(json.dumps(out) + "\n")
