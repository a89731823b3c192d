#!/usr/bin/env python3
"""Writes golden.json beside itself: blocks dequantised by PyPI's gguf, activations and norms as PyTorch has them in float64. Needs gguf and torch."""
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
pathlib.Path(__file__).with_name("golden.json").write_text(json.dumps(out) + "\n")
