"""Stage ``reference`` (not part of ``all``): weights.bin of a bundle, and what the reference
implementation makes of one input, for parity tests of other runtimes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from .base import Base, gguf_file
from .settings import SIDE, TEMPLATE, Places

SENTENCE = "The heart is enlarged. There is no pleural effusion."


def session(path: Path, threads: int = 2):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


class Bundle:
    """A bundle run by ONNX Runtime, with ``weights.bin`` beside its graphs."""

    def __init__(self, folder: Path):
        from .reader import Prompt

        self.manifest = json.loads((folder / "manifest.json").read_text())
        self.vision, self.adapter, self.embedding, self.decoder = (
            session(folder / f"{name}.onnx") for name in ("vision", "adapter", "embed", "decoder"))
        self.prompt = Prompt(folder / "tokenizer.json")
        self.shape = self.manifest["decoder"]

    def features(self, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return tuple(self.vision.run(["image_features", "findings_logits"], {"pixel_values": pixels}))

    def embed(self, ids: np.ndarray) -> np.ndarray:
        return self.embedding.run(None, {"input_ids": ids.astype(np.int64)})[0]

    def prefix(self, features: np.ndarray) -> np.ndarray:
        image = self.adapter.run(None, {"image_features": features})[0]
        rows = len(image)

        def side(ids):
            return np.repeat(self.embed(np.array([ids])), rows, 0)

        return np.concatenate([side(self.prompt.before), image, side(self.prompt.after)], 1)

    def step(self, x: np.ndarray, cache: list[np.ndarray] | None, indices: np.ndarray):
        """(logits, cache)"""
        rows, kv, dim = len(x), self.shape["kv_heads"], self.shape["head_dim"]
        past = cache[0].shape[2] if cache else 0
        feeds = {"inputs_embeds": x, "seqlens_k": np.full(rows, past + x.shape[1] - 1, np.int32),
                 "total_seq": np.array([past + x.shape[1]], np.int32), "logits_indices": indices.astype(np.int64)}
        for i in range(self.shape["layers"]):
            for j, kind in enumerate("kv"):
                feeds[f"past_{kind}{i}"] = cache[2 * i + j] if cache else np.zeros((rows, kv, 0, dim), np.float32)
        out = self.decoder.run(None, feeds)
        return out[0], out[1:]

    def greedy(self, features: np.ndarray, most: int | None = None) -> tuple[list[list[int]], np.ndarray]:
        """Greedy answers and the logits of their first token."""
        x = self.prefix(features)
        first, cache = self.step(x, None, np.array([x.shape[1] - 1]))
        following, answers = first[:, 0].argmax(-1), [[] for _ in x]
        running = np.ones(len(x), bool)
        for _ in range(most or self.manifest["generation"]["max_new_tokens"]):
            running &= following != self.prompt.end
            if not running.any():
                break
            for answer, token, on in zip(answers, following, running):
                if on:
                    answer.append(int(token))
            logits, cache = self.step(self.embed(following[:, None]), cache, np.array([0]))
            following = logits[:, 0].argmax(-1)
        return answers, first[:, 0]

    def score(self, features: np.ndarray, answer: list[int]) -> np.ndarray:
        """Log-probability of each token of one answer, per row of features."""
        x = self.prefix(features)
        ids = np.repeat(np.array([answer]), len(x), 0)
        full = np.concatenate([x, self.embed(ids[:, :-1])], 1)
        start = x.shape[1] - 1
        logits = self.step(full, None, np.arange(start, start + len(answer)))[0].astype(np.float64)
        logits -= logits.max(-1, keepdims=True)
        chosen = np.take_along_axis(logits, ids[..., None], -1)[..., 0]
        return chosen - np.log(np.exp(logits).sum(-1))


def write(folder: Path, target: Path, pixels: np.ndarray) -> None:
    """ref.npz for a bundle folder that holds weights.bin."""
    bundle = Bundle(folder)
    features, findings = bundle.features(pixels)
    answers, first = bundle.greedy(features, 24)
    sentence = bundle.prompt.answer(SENTENCE)
    np.savez(target, pixel_values=pixels, image_features=features, findings_logits=findings,
             image_embeds=bundle.adapter.run(None, {"image_features": features})[0],
             ids_before=np.array(bundle.prompt.before), ids_after=np.array(bundle.prompt.after),
             first_logits=first, greedy_ids=np.array(answers[0]), sentence=np.array(SENTENCE),
             sentence_ids=np.array(sentence), target_logprobs=bundle.score(features, sentence),
             template=np.array(TEMPLATE))


def run(places: Places) -> None:
    import safetensors.numpy as st

    from .export import language_graphs, write_weights

    folder = places.cached("reference")
    folder.mkdir(exist_ok=True)
    for path in places.bundle.iterdir():
        link = folder / path.name
        link.unlink(missing_ok=True)
        link.write_bytes(path.read_bytes())
    base = Base(gguf_file(places))
    digest = write_weights(base, language_graphs(folder, base), st.load_file(str(folder / "lora.safetensors")), folder / "weights.bin")
    rng = np.random.default_rng(7)
    write(folder, folder / "ref.npz", rng.uniform(-1, 1, (1, 1, SIDE, SIDE)).astype(np.float32))
    print(f"reference: {folder}, weights.bin sha256 {digest}")
