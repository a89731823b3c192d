#!/usr/bin/env python3
"""Writes sampling.json.gz: what transformers' logits processors leave of random logits, in the order in which generate runs them.

Run with transformers 4.57 and PyTorch 2.9: python3 sampling.py
"""
import gzip, json, pathlib, random
import torch
from transformers.generation.logits_process import (
    MinPLogitsWarper, RepetitionPenaltyLogitsProcessor, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

rnd = random.Random(5)
torch.manual_seed(5)
cases = []
for n in range(200):
    size = rnd.choice([3, 40, 120])
    logits = ((torch.randn(size) * rnd.choice([0.5, 3, 8])) * 64).round() / 64 + torch.arange(size) / 4096  # short in decimal digits
    if n % 3 == 0:  # a mask
        logits[torch.rand(size) < 0.3] = -float("inf")
        logits[rnd.randrange(size)] = 1.5
    if n % 5 == 0:  # equal ones
        logits = (logits * 2).round() / 2
    case = {
        "temperature": rnd.choice([0.2, 0.7, 1.0, 1.0, 1.8]),
        "top_k": rnd.choice([0, 0, 1, 5, 50, 1000]),
        "top_p": rnd.choice([1.0, 1.0, 0.95, 0.5, 0.1]),
        "min_p": rnd.choice([0.0, 0.0, 0.05, 0.3]),
        "repetition_penalty": rnd.choice([1.0, 1.0, 1.3, 0.7]),
        "seen": [rnd.randrange(size) for _ in range(rnd.choice([0, 4, 40]))],
        "logits": [None if v == -float("inf") else v for v in logits.tolist()],
    }
    if n % 5 == 0:
        case["top_p"] = 1.0  # of equal ones at top-p's edge it is chance which are kept
    scores, ids = logits[None], torch.tensor([case["seen"]], dtype=torch.long)
    if case["repetition_penalty"] != 1.0 and case["seen"]:
        scores = RepetitionPenaltyLogitsProcessor(case["repetition_penalty"])(ids, scores)
    if case["temperature"] != 1.0:
        scores = TemperatureLogitsWarper(case["temperature"])(ids, scores)
    if case["top_k"]:
        scores = TopKLogitsWarper(case["top_k"])(ids, scores)
    if case["top_p"] < 1.0:
        scores = TopPLogitsWarper(case["top_p"])(ids, scores)
    if case["min_p"]:
        scores = MinPLogitsWarper(case["min_p"])(ids, scores)
    case["probabilities"] = [[i, round(p, 9)] for i, p in enumerate(scores.double().softmax(-1)[0].tolist()) if scores[0, i] != -float("inf")]
    cases.append(case)

path = pathlib.Path(__file__).with_name("sampling.json.gz")
with path.open("wb") as f, gzip.GzipFile(fileobj=f, mode="wb", mtime=0, filename="") as z:
    z.write(json.dumps(cases).encode())
