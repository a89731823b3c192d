"""Stage ``export``: the finished bundle, as docs/bundle.md describes it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from . import adapters, features, fit_encoder, fit_reader
from .base import PROJECTIONS, Base, gguf_file, write_tokenizer
from .encoder import Encoder
from .graphs import Layout, decoder_graph, embed_graph, flat_graphs, traced_graph, vision_graph
from .language import ADAPTED
from .reader import IMAGE_TOKENS, Adapter
from .settings import FEATURE_TOKENS, FINDINGS, IMPRESSION, INSTRUCTION, PREPROCESS, SENTINEL, WIDTH, Places

REVISION = "0.1.3"
ADAPTER = "report"  # the name of the LoRA
BASE_NAME = "HuggingFaceTB/SmolLM2-135M-Instruct"
MAX_LENGTH = 512
MIN_AGE_YEARS = 18  # films of children were hardly in the data, and are marked in one set only
#: Labels of the closed list that the target texts speak of.
LABELS = list(FINDINGS)
LICENSE = ("Apache-2.0 for the code, the graphs and the language model's derivatives; the vision and adapter "
           "weights and the LoRA were trained on data for research use, some of it non-commercial: see README.md")
INTENDED_USE = ("Drafts for developing and testing the service; research only. Not a medical device, not for "
                "diagnosis, triage or any decision about a patient.")


def training_data(counts: dict[str, int]) -> str:
    names = {"nih": "NIH ChestX-ray14", "nih64": "NIH ChestX-ray14 at 64 px", "tb128": "Shenzhen and Montgomery",
             "notes": "covid-chestxray-dataset", "covidcxnet": "COVID-CXNet", "hannover": "Hannover",
             "actualmed": "Actualmed"}
    sets = ", ".join(f"{names[k]} {n}" for k, n in sorted(counts.items(), key=lambda kv: -kv[1]))
    return (f"Frontal films (training part only): {sets}. Labels text-mined or of the case, noisy; report texts "
            "come from a grammar over labels and masks, not from radiologists. Licences: README.md.")


def merged(base: Base, lora: dict[str, np.ndarray], op: str, *sources: str) -> np.ndarray:
    """An initializer with its LoRA added, exactly as the Go converter does it: in float32, the sum
    over the rank first, in ascending order, then added to the base value."""
    return np.concatenate([merged_one(base, lora, op, source) for source in sources], -1)


def merged_one(base: Base, lora: dict[str, np.ndarray], op: str, source: str) -> np.ndarray:
    value = base.initializer(op, source)
    name = source.removesuffix(".weight")
    if f"{name}.lora_a" in lora:
        a, b = (lora[f"{name}.lora_{side}"].astype(np.float32) for side in "ab")
        total = np.zeros_like(value)
        for r in range(len(a)):
            total += a[r][:, None] * b[:, r][None, :]
        value = value + total
    return value


def rounded(values: np.ndarray, kind: str) -> np.ndarray:
    """Values of float32 in a layout's dtype: the nearest, of two as near the even one."""
    if kind == "bfloat16":  # NumPy has none: the upper half of a float32
        bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
        return ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype("<u2")
    return values.astype({"float32": "<f4", "float16": "<f2"}[kind])


def write_weights(base: Base, layout: Layout, lora: dict[str, np.ndarray], path: Path | None) -> str:
    """Writes weights.bin (or, without a path, nothing) and returns its sha256."""
    digest, position = hashlib.sha256(), 0
    file = open(path, "wb") if path else None
    for (op, sources), entry in layout.entries.items():
        data = (base.packed(op, sources) if op.startswith("pack_")
                else rounded(merged(base, lora, op, *sources), entry["dtype"])).tobytes()
        if len(data) != entry["bytes"]:
            raise ValueError(f"{op} {sources}: {len(data)} bytes, the layout says {entry['bytes']}")
        for piece in (b"\0" * (entry["offset"] - position), data):
            digest.update(piece)
            if file:
                file.write(piece)
        position = entry["offset"] + len(data)
    if file:
        file.close()
    return digest.hexdigest()


def write(folder: Path, base: Base, encoder: Encoder, adapter: Adapter, lora: dict[str, torch.Tensor],
          decoys: np.ndarray, data: str) -> dict:
    """Writes a whole bundle and returns its manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    halves = {k: v.numpy().astype(np.float16) for k, v in sorted(lora.items())}
    if len(halves) != 2 * base.layers * len(ADAPTED) or not set(ADAPTED) <= set(PROJECTIONS):
        raise ValueError("LoRA is not whole")
    vision_graph(encoder, len(FINDINGS), folder / "vision.onnx")
    traced_graph(adapter, torch.zeros(2, FEATURE_TOKENS, WIDTH), ["image_features"], ["image_embeds"],
                 folder / "adapter.onnx")
    adapters.write(folder / adapters.FOLDER / ADAPTER, halves, base.path, BASE_NAME)
    save_file({"image_features": decoys.astype(np.float16)}, str(folder / "decoys.safetensors"))
    write_tokenizer(base, folder / "tokenizer.json")
    (folder / "chat_template.jinja").write_text((Path(__file__).parent / "chatml.jinja").read_text())
    manifest = {
        "version": 1, "name": "chatxray-base", "revision": REVISION, "license": LICENSE,
        "intended_use": INTENDED_USE, "training_data": data, "languages": ["en"],
        "patients": {"min_age_years": MIN_AGE_YEARS}, "preprocess": PREPROCESS,
        "graphs": {"vision": "vision.onnx", "adapter": "adapter.onnx"},
        "vision": {"feature_tokens": FEATURE_TOKENS, "feature_dim": WIDTH, "image_tokens": IMAGE_TOKENS,
                   "findings": list(FINDINGS)},
        "decoder": {"layers": base.layers, "heads": base.heads, "kv_heads": base.kv_heads,
                    "head_dim": base.head_dim, "hidden": base.hidden, "vocab": base.vocab,
                    "max_length": MAX_LENGTH, "rope_theta": base.theta},
        "base": {"part": "smollm2-135m-instruct-gguf", "sha256": adapters.sha256(base.path), "adapter": ADAPTER,
                 "forms": language_forms(folder, base, halves, MAX_LENGTH)},
        "tokenizer": {"type": "byte_level_bpe", "file": "tokenizer.json"},
        "prompt": {"splice": "replace_sentinel", "sentinel": SENTINEL, "chat_template": "chat_template.jinja",
                   "instruction": INSTRUCTION},
        "generation": {"max_new_tokens": 160, "stop_tokens": ["<|im_end|>", "<|endoftext|>"],
                       "stop_strings": []},
        "report": {"impression_prefix": IMPRESSION},
        "evidence": {"decoys": "decoys.safetensors"},
        "labels": LABELS,
    }
    seal(folder, manifest)
    return manifest


def seal(folder: Path, manifest: dict) -> None:
    """Fills in sizes and digests of every other file of the folder, and writes the manifest. A weights.bin belongs to
    a bundle only where it is not made of a base model."""
    skipped = ("manifest.json", WEIGHTS_NAME) if "part" in manifest.get("base", {"part": ""}) else ("manifest.json",)
    manifest["files"] = {
        path.relative_to(folder).as_posix(): {"sha256": adapters.sha256(path), "bytes": path.stat().st_size}
        for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in skipped}
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")


WEIGHTS_NAME = "weights.bin"
#: The forms of the language model: name, kind, precision.
FORMS = (("q4", "flat", "float32"), ("fp32", "flat", "float32"), ("standard", "gqa", "float32"),
         ("half", "gqa", "float16"), ("brain", "gqa", "bfloat16"))


def language_forms(folder: Path, base: Base, lora: dict[str, np.ndarray], longest: int) -> list[dict]:
    """Writes the graphs and layouts of the language model in every form; returns the manifest's base.forms."""
    forms = []
    for name, kind, precision in FORMS:
        layout = Layout(base, precision)
        embed, decoder, plan = (f"{part}.{name}.{end}" for part, end in (("embed", "onnx"), ("decoder", "onnx"), ("layout", "json.gz")))
        if kind == "flat":
            flat_graphs(layout, name, folder / embed, folder / decoder)
        else:
            embed_graph(layout, folder / embed)
            decoder_graph(layout, folder / decoder, longest)
        layout.save(folder / plan)
        forms.append({"name": name, "kind": kind, "precision": precision, "embed": embed, "decoder": decoder, "layout": plan,
                      "weights_sha256": write_weights(base, layout, lora, None), "weights_bytes": layout.end})
    return forms


def run(places: Places) -> None:
    base = Base(gguf_file(places))
    encoder = features.trained_encoder(places)
    adapter, lora = fit_reader.trained(places)
    manifest = write(places.bundle, base, encoder, adapter, lora, features.decoys(places),
                     training_data(fit_encoder.counts(places)))
    own = sum(manifest["files"][n]["bytes"] for n in ("vision.onnx", "adapter.onnx", "decoys.safetensors",
                                                      f"{adapters.FOLDER}/{ADAPTER}/adapter_model.safetensors"))
    print(f"export: {places.bundle}, own weights {own / 1e6:.2f} MB")
    if own > 15e6:
        raise ValueError("own weights exceed 15 MB")
