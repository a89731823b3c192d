"""What the tiny bundles have in common: pictures, tokenizer, random weights that can fail, golden values, manifest."""

from __future__ import annotations

import base64
import gzip
import hashlib
import importlib
import json
import os
import shutil
import sys
import types
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from ..export import seal
from .parts import Parts, Store, Unsupported

NEW = 64        # greedy tokens
LONGEST = 256   # tokens of a context
LEAST_MARGIN = 2e-3  # between the best logit and the next, so that rounding decides nothing
TEXTS = ["The heart is enlarged. There is an opacity in the left lung. There is a small pleural effusion.",
         "The heart size is normal. The lungs are clear. There is no pleural effusion or pneumothorax.",
         "Describe the findings of this chest radiograph. Write a report. Impression: No acute finding.",
         "USER: ASSISTANT: Question: Answer: Human: user assistant system Picture 1: image"]


def pictures(sizes: list[tuple[int, int]], seed: int = 7) -> list[np.ndarray]:
    """8-bit gray pictures [rows, columns]: soft blobs, an edge and noise, so that resampling matters."""
    made, random = [], np.random.default_rng(seed)
    for rows, columns in sizes:
        y, x = np.mgrid[:rows, :columns]
        value = random.normal(0, 18, (rows, columns)) + 60
        for _ in range(4):
            cy, cx, r = random.uniform(0, rows), random.uniform(0, columns), random.uniform(4, 14)
            value += random.uniform(-60, 150) * np.exp(-((y - cy) ** 2 + (x - cx) ** 2) / (2 * r * r))
        value[rows // 3:, : columns // 4] += 50
        made.append(np.clip(value, 0, 255).astype(np.uint8))
    return made


def resized(gray: np.ndarray, width: int, height: int, resample=Image.Resampling.BICUBIC) -> np.ndarray:
    """Gray 0..1 resampled in float by Pillow: no rounding to 8 bits, which Hugging Face's processors do and we do not."""
    return np.asarray(Image.fromarray(gray.astype(np.float32) / np.float32(255), "F").resize((width, height), resample), np.float32)


def colour(gray: np.ndarray) -> Image.Image:
    return Image.fromarray(gray).convert("RGB")


def normalised(gray: np.ndarray, mean, std) -> torch.Tensor:
    """[1, channels, rows, columns]"""
    return torch.from_numpy(np.stack([(gray - np.float32(m)) / np.float32(s) for m, s in zip(mean, std)])[None].astype(np.float32))


def near(ours: torch.Tensor, theirs: torch.Tensor, std) -> None:
    """The reference's processor rounds to 8 bits after each pass and cuts what a kernel overshoots; nothing else
    may differ, such as a place off by a fraction of a pixel."""
    if ours.shape != theirs.shape:
        raise ValueError(f"pixels of {tuple(ours.shape)}, the processor makes {tuple(theirs.shape)}")
    off = (ours - theirs).abs() * max(std) * 255
    if off.quantile(0.98) > 1.6 or off.max() > 40:
        raise ValueError(f"pixels differ by {float(off.quantile(0.98)):.1f} (98 %) and {float(off.max()):.1f} of 255 from the processor's")


def tokenizer(folder: Path, specials: list[str], size: int = 320) -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(TEXTS, trainers.BpeTrainer(
        vocab_size=size, special_tokens=specials, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.save(str(folder / "tokenizer.json"))
    return tok


def fast(tok: Tokenizer, kind=None, **named):
    """The tokenizer as transformers' processors want it."""
    from transformers import PreTrainedTokenizerFast

    return (kind or PreTrainedTokenizerFast)(tokenizer_object=tok, clean_up_tokenization_spaces=False, model_input_names=["input_ids", "attention_mask"], **named)


def scramble(model: torch.nn.Module, seed: int, gains: dict[str, float] | None = None) -> None:
    """Random weights under which attention is picky, positions matter and logits are far apart. ``gains`` are
    factors for parameters whose name holds the key."""
    random = torch.Generator().manual_seed(seed)

    def normal(p):
        return torch.randn(p.shape, generator=random)

    with torch.no_grad():
        for name, p in model.named_parameters():
            gain = 1.0
            for key, factor in (gains or {}).items():
                gain = factor if key in name else gain
            if "norm" in name.lower() or "ln_" in name or "layrnorm" in name:
                p.copy_(gain * (0.1 * normal(p) + (1.0 if name.endswith("weight") else 0.0)))
            elif p.ndim < 2:
                p.copy_(0.1 * gain * normal(p))
            elif "embed_tokens" in name or "word_embed" in name or "wte" in name:
                p.copy_(gain * normal(p))
            elif "position" in name or "class_embedding" in name or "query_tokens" in name:
                p.copy_(0.5 * gain * normal(p))
            else:
                p.copy_(gain * normal(p) / np.sqrt(p[0].numel()))
    model.eval().requires_grad_(False)


def generated(model, **inputs) -> tuple[list[int], np.ndarray]:
    """64 greedy tokens of transformers' generate and the first logits."""
    for part in (model, getattr(model, "language_model", None)):
        if getattr(part, "generation_config", None) is not None:
            part.generation_config.eos_token_id = None
            part.generation_config.pad_token_id = 0
    with torch.no_grad():
        said = model.generate(**inputs, max_new_tokens=NEW, do_sample=False, return_dict_in_generate=True, output_logits=True)
    logits = torch.stack(said.logits)[:, 0].float()
    ids = said.sequences[0, -NEW:].tolist()
    able(ids, logits)
    return ids, logits[0].numpy()


def stepped(forward, ids: list[int]) -> tuple[list[int], np.ndarray]:
    """generated for models whose code is older than transformers' generate: ``forward(ids, all ids, past)`` returns
    logits [n, vocab] and the new past; each token after the first goes through the reference's own cache."""
    said, rows, past, fed = [], [], None, list(ids)
    with torch.no_grad():
        while len(said) < NEW:
            logits, past = forward(fed, list(ids) + said, past)
            rows.append(logits[-1].float())
            said.append(int(rows[-1].argmax()))
            fed = said[-1:]
    able(said, torch.stack(rows))
    return said, rows[0].numpy()


def outside(name: str, files: dict[str, str], modules: dict | None = None, folder: Path | None = None):
    """A package of reference code that no registry has, from a folder, by default CHATXRAY_REFERENCES/name; ``files`` are their
    sha256. ``modules`` stand in for files that only carry data."""
    folder = folder or Path(os.environ.get("CHATXRAY_REFERENCES", "references")) / name
    for file, digest in files.items():
        if not (folder / file).exists() or hashlib.sha256((folder / file).read_bytes()).hexdigest() != digest:
            raise Unsupported(f"{folder / file} is absent or another version; the one that was read and is run has the sha256 {digest}")
    package = types.ModuleType(f"reference_{name}")
    package.__path__ = [str(folder)]
    sys.modules[package.__name__] = package
    for module, value in (modules or {}).items():
        sys.modules[f"{package.__name__}.{module}"] = value
    return [importlib.import_module(f"{package.__name__}.{Path(file).stem}") for file in files]


def able(ids: list[int], logits: torch.Tensor) -> None:
    """Refuses golden values that a wrong engine would pass by, or that rounding decides."""
    best = logits.topk(2).values
    margin, spread, distinct = float((best[:, 0] - best[:, 1]).min()), float(logits.std(-1).min()), len(set(ids))
    if len(ids) != NEW or logits.argmax(-1).tolist() != ids:
        raise ValueError("the tokens are not the best ones of their logits")
    if spread < 1 or distinct < 20 or margin < LEAST_MARGIN:
        raise Weak(f"spread {spread:.2f}, {distinct} distinct tokens, least margin {margin:.4f}")


class Weak(ValueError):
    """Random weights that make a weak golden file: another seed may do."""


def search(make, first: int = 1, tries: int = 200):
    """Calls make(seed) until its weights do."""
    for seed in range(first, first + tries):
        try:
            made = make(seed)
            print(f"  seed {seed}")
            return made
        except Weak as why:
            print(f"  seed {seed}: {why}")
    raise ValueError("no seed does")


def rounded(values) -> list[float]:
    return [float(f"{v:.7g}") for v in np.asarray(values, np.float64).reshape(-1)]


class Bundle:
    """Collects a bundle in TARGET/name and its golden values in TARGET/name.json.gz."""

    def __init__(self, target: Path, name: str, reference: str, apart: bool = False):
        self.folder, self.golden_path, self.name, self.reference = target / name, target / f"{name}.json.gz", name, reference
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        self.store, self.images = Store(self.folder, apart), []

    def golden(self, grays, features, ids: list[int], logits, greedy: list[int], **more) -> None:
        """``grays`` is one picture, a list of the pictures of one prompt, or None."""
        entry = {"ids": [int(i) for i in ids], "first_logits": rounded(logits), "greedy": [int(i) for i in greedy], **more}
        if grays is not None:
            grays = grays if isinstance(grays, list) else [grays]
            entry["pictures"] = [{"rows": g.shape[0], "columns": g.shape[1], "gray": base64.b64encode(g.tobytes()).decode()} for g in grays]
            entry["image_features"] = rounded(features)
        self.images.append(entry)

    def finish(self, parts: Parts, template: str, tensors: list | None = None) -> None:
        """``template`` is the prompt, ``tensors`` (float32 [channels, height, width]) are the decoys' pictures."""
        self.store.close()
        graphs = {part: f"{part}.onnx" for part in ("vision", "adapter") if (self.folder / f"{part}.onnx").exists()}
        if parts.features:
            save_file({"image_features": np.stack([parts.features(np.asarray(t)) for t in tensors])}, str(self.folder / "decoys.safetensors"))
        manifest = {
            "version": 1, "name": f"tiny-{self.name}", "revision": "1", "license": "Apache-2.0",
            "intended_use": "Tests. Its weights are random numbers.", "training_data": "None.", "languages": ["en"],
            "family": parts.family, "preprocess": parts.preprocess, "graphs": graphs, "vision": parts.vision, "decoder": parts.decoder,
            "base": {"forms": [{"name": "fp32", "kind": "flat", "embed": "embed.onnx", "decoder": "decoder.onnx"}]},
            "tokenizer": {"type": "byte_level_bpe", "file": "tokenizer.json"}, "prompt": parts.prompt | {"template": template},
            "generation": {"max_new_tokens": 64, "stop_tokens": ["<|endoftext|>"], "stop_strings": []},
            "report": {"impression_prefix": ""},
            "evidence": {"decoys": "decoys.safetensors"} if parts.features else {},
            "labels": ["Cardiomegaly"], **parts.more}
        for entry in self.images:
            entry.setdefault("prompt", template)
        seal(self.folder, manifest)
        with gzip.GzipFile(self.golden_path, "wb", mtime=0) as file:
            file.write(json.dumps({"reference": self.reference, "images": self.images}).encode())
        size = sum(p.stat().st_size for p in self.folder.iterdir())
        print(f"{self.name}: {size / 1e3:.0f} kB, golden {self.golden_path.stat().st_size / 1e3:.0f} kB")
        if size > 1e6:
            raise ValueError("the bundle is not tiny")
