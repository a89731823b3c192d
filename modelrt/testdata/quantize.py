#!/usr/bin/env python3
"""Writes quantize.json: blocks of 32 numbers as the package gguf quantises them (Q4_1, Q8_0). Needs gguf, numpy."""
import base64
import json
import pathlib

import numpy as np
from gguf import GGMLQuantizationType as Q
from gguf import quants

random = np.random.default_rng(3)
blocks = [random.standard_normal(32) * scale for scale in (1e-6, 1e-3, 0.02, 0.1, 1, 30, 1000) for _ in range(12)]
blocks += [np.zeros(32), np.full(32, 0.25), np.full(32, -3.0), np.arange(32) / 31, -np.arange(32) / 7, np.eye(32)[5], np.arange(32) % 15, (np.arange(32) - 16) / 127 * 1.5]
cases = []
for b in np.array(blocks, np.float32):
    q4, q8 = (quants.quantize(b[None], kind).tobytes() for kind in (Q.Q4_1, Q.Q8_0))
    cases.append({"values": b.view(np.uint32).tolist(), "q4_1": base64.b64encode(q4).decode(), "q8_0": base64.b64encode(q8).decode()})
(pathlib.Path(__file__).parent / "quantize.json").write_text(json.dumps(cases))
