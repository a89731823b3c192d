"""``python -m train convert``: a bundle of a checkpoint.

The checkpoint is a folder as Hugging Face's save_pretrained writes it: config.json, weights, tokenizer, processor. It is
read from the disk, never fetched. Weights become float32; ``chatxray bundles quantize`` makes 4 or 8 bits of them."""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from ..export import INTENDED_USE, seal
from ..settings import INSTRUCTION, REPOSITORY
from .parts import Parts, Store, Unsupported

#: transformers' model_type: this package's module, transformers' class, a template of ours where checkpoints bring none.
KINDS = {
    "llava": ("llava", "LlavaForConditionalGeneration", None),
    "qwen2_vl": ("qwen2vl", "Qwen2VLForConditionalGeneration", None),
    "qwen2_5_vl": ("qwen2vl", "Qwen2_5_VLForConditionalGeneration", None),
    "gemma3": ("gemma3", "Gemma3ForConditionalGeneration", None),
    "blip-2": ("blip2", "Blip2ForConditionalGeneration", "blip2.jinja"),
    "fuyu": ("fuyu", "FuyuForCausalLM", "fuyu.jinja"),
    "llama": ("llama", "LlamaForCausalLM", None),
    "mistral": ("llama", "MistralForCausalLM", None),
    "qwen2": ("llama", "Qwen2ForCausalLM", None),
}
#: Tokens that end an answer, where a vocabulary has them besides the configuration's own.
ENDS = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|endoftext|>")
LABELS = ("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema", "Consolidation", "Pneumonia", "Atelectasis",
          "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices")


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m train convert", description="Makes a bundle of a checkpoint in Hugging Face's form. Types of models: " + ", ".join(KINDS) + ".",
        epilog="Then: chatxray bundles verify OUT; chatxray bundles quantize OUT OUT-q4 --to q4; chatxray report --bundle OUT-q4 FILE.")
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="CHECKPOINT", help="folder with config.json, weights, tokenizer, processor")
    parser.add_argument("--bundle", type=Path, required=True, metavar="OUT", help="folder to make; it must not be there")
    parser.add_argument("--name", help="of the bundle; default: the checkpoint's folder")
    parser.add_argument("--revision", default="1", help="of the weights, such as a commit (default 1)")
    parser.add_argument("--license", help="default: that of the checkpoint's README.md")
    parser.add_argument("--training-data", help="what it was trained on; default: a word that its model card says so")
    parser.add_argument("--intended-use", default=INTENDED_USE)
    parser.add_argument("--languages", default="en", help="what it writes, RFC 5646, with commas; the first is that of reports (default en)")
    parser.add_argument("--labels", default=",".join(LABELS), help="findings that its reports speak of, with commas; the others are never said (default: all fourteen)")
    parser.add_argument("--instruction", default=INSTRUCTION, help=f"what asks for a report (default: {INSTRUCTION!r})")
    parser.add_argument("--impression", default="Impression:", help="what begins the impression in its reports (default 'Impression:')")
    parser.add_argument("--chat-template", type=Path, help="Jinja file, where the checkpoint has none")
    parser.add_argument("--images", type=int, default=1, help="the most images of a conversation (default 1)")
    parser.add_argument("--max-length", type=int, default=4096, help="tokens of prompt and answer together, at most (default 4096)")
    parser.add_argument("--max-new-tokens", type=int, default=320, help="of a report (default 320)")
    parser.add_argument("--decoys", type=Path, nargs="+", default=[], metavar="FILE",
                        help="radiographs of other patients (DICOM, PNG, JPEG), 1 to 16, for the evidence: only what the encoder makes of them is kept. Default: phantoms, which is worse")
    parser.add_argument("--chatxray", type=Path, default=REPOSITORY / "bin" / "chatxray", help="the binary, which prepares decoys and verifies (default bin/chatxray)")
    return parser.parse_args(arguments)


def checkpoint(source: Path):
    """The module for a checkpoint, its model with the weights as they are stored, its processor or tokenizer, our template or None."""
    import importlib

    import transformers

    kind = json.loads((source / "config.json").read_text()).get("model_type")
    if kind not in KINDS:
        raise Unsupported(f"models of the type {kind} are not converted; {', '.join(KINDS)} are")
    name, class_name, template = KINDS[kind]
    module = importlib.import_module(f".{name}", __package__)
    model = getattr(transformers, class_name).from_pretrained(source, local_files_only=True, dtype="auto", attn_implementation="eager")
    model.eval().requires_grad_(False)
    if name == "llama":
        return module, model, transformers.AutoTokenizer.from_pretrained(source, local_files_only=True), None
    return module, model, transformers.AutoProcessor.from_pretrained(source, local_files_only=True), template


def write_tokenizer(tokenizer, folder: Path, sighted: bool) -> str:
    """Writes tokenizer.json and returns the manifest's tokenizer.type."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        raise Unsupported("the checkpoint's tokenizer has no fast form (tokenizer.json)")
    known = json.loads(backend.to_str())
    if not sighted:  # apply_chat_template of a tokenizer puts nothing before a text, a processor's does
        known["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(known, ensure_ascii=False))
    kind = known["model"]["type"]
    if kind == "BPE":
        return "byte_level_bpe" if "ByteLevel" in json.dumps([known["pre_tokenizer"], known["decoder"]]) else "sentencepiece_bpe"
    kinds = {"Unigram": "sentencepiece_unigram", "WordPiece": "wordpiece"}
    if kind not in kinds:
        raise Unsupported(f"a tokenizer of the type {kind}")
    return kinds[kind]


def stops(model, tokenizer) -> list[str]:
    """The tokens that end an answer."""
    ids = model.generation_config.eos_token_id if model.generation_config else None
    ids = ids if isinstance(ids, list) else [ids if ids is not None else tokenizer.eos_token_id]
    words = [tokenizer.convert_ids_to_tokens(int(i)) for i in ids if i is not None]
    found = list(dict.fromkeys([w for w in words if w] + [w for w in ENDS if w in tokenizer.get_vocab()]))
    if not found:
        raise Unsupported("neither the configuration nor the vocabulary names a token that ends an answer")
    return found


def template_of(given: Path | None, processor, tokenizer, ours: str | None) -> str:
    """The chat template: what was asked for, the checkpoint's, ours."""
    if given:
        return given.read_text()
    found = getattr(processor, "chat_template", None) or getattr(tokenizer, "chat_template", None)
    if isinstance(found, dict):
        found = found.get("default")
    if not found and ours:
        found = (Path(__file__).parent / "templates" / ours).read_text()
    if not found:
        raise Unsupported("the checkpoint has no chat template; give one with --chat-template FILE")
    return found


def decoys(parts: Parts, files: list[Path], binary: Path) -> np.ndarray:
    """image_features of other pictures, float32 [K, N, Dv]; serving's own preprocessing makes their tensors."""
    shape = {k: v for k, v in parts.preprocess.items() if k in ("width", "height", "channels", "interpolation", "mean", "std", "voi")}
    fit = parts.preprocess["fit"]
    with tempfile.TemporaryDirectory() as scratch:
        folder, spec = Path(scratch), Path(scratch) / "preprocess.json"
        if not files:
            files = [folder / f"phantom{i}.dcm" for i in range(4)]
            for i, (file, planted) in enumerate(zip(files, ([], ["--effusion=left"], ["--big-heart"], ["--opacity=right"]))):
                subprocess.run([str(binary), "phantom", f"--out={file}", f"--seed={i + 11}", *planted], check=True)
        if len({f.stem for f in files}) != len(files) or not 1 <= len(files) <= 16:
            raise Unsupported("--decoys takes 1 to 16 files of different names")
        spec.write_text(json.dumps(shape | {"fit": fit if fit in ("squash", "pad", "crop") else "squash"}))  # of any size: the usual size
        subprocess.run([str(binary), "--log-level=warn", "preprocess", "--out", str(folder / "out"), "--format", "npy", "--spec", str(spec), "-"],
                       input="".join(f"{f}\n" for f in files), text=True, check=True)
        tensors = [np.load(folder / "out" / f"{f.stem}.npy") for f in files]
    return np.stack([parts.features(t.reshape(-1, parts.preprocess["height"], parts.preprocess["width"])) for t in tensors]).astype(np.float32)


def license_of(source: Path) -> str:
    """What the front matter of the checkpoint's model card says."""
    card = source / "README.md"
    found = re.search(r"^license(?:_name)?:\s*(\S.*)$", card.read_text(), re.MULTILINE) if card.exists() else None
    if not found:
        raise Unsupported("the checkpoint's README.md names no license; say it with --license")
    return found[1].strip().strip("'\"")


def convert(o: argparse.Namespace) -> dict:
    """Writes the bundle and returns its manifest."""
    if not (o.source / "config.json").exists():
        raise Unsupported("there is no config.json: it is no checkpoint as save_pretrained writes it")
    terms = o.license or license_of(o.source)
    module, model, processor, ours = checkpoint(o.source)
    tokenizer = getattr(processor, "tokenizer", processor)
    template = template_of(o.chat_template, processor, tokenizer, ours)
    name = o.name or re.sub(r"[^A-Za-z0-9._-]+", "-", o.source.resolve().name)
    print(f"{name}: {type(model).__name__}, {sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters", flush=True)

    store = Store(o.bundle, apart=True)
    parts = module.export(model, processor, store, o.max_length)
    store.close()
    sighted = parts.features is not None
    kind = write_tokenizer(tokenizer, o.bundle, sighted)
    (o.bundle / "chat_template.jinja").write_text(template)
    if sighted:
        save_file({"image_features": decoys(parts, o.decoys, o.chatxray)}, str(o.bundle / "decoys.safetensors"))
    begins = {f"{n}_token": t for n, t in (("bos", tokenizer.bos_token), ("eos", tokenizer.eos_token)) if t}
    more = {"images": o.images} if sighted and o.images > 1 else {}
    manifest = {
        "version": 1, "name": name, "revision": o.revision, "license": terms, "intended_use": o.intended_use,
        "training_data": o.training_data or f"See the model card of {name}.", "languages": o.languages.split(","),
        "family": parts.family, "preprocess": parts.preprocess,
        "graphs": {part: f"{part}.onnx" for part in ("vision", "adapter") if (o.bundle / f"{part}.onnx").exists()},
        "vision": parts.vision, "decoder": parts.decoder,
        "base": {"forms": [{"name": "fp32", "kind": "flat", "embed": "embed.onnx", "decoder": "decoder.onnx"}]},
        "tokenizer": {"type": kind, "file": "tokenizer.json"},
        "prompt": parts.prompt | {"chat_template": "chat_template.jinja", "instruction": o.instruction} | begins | more,
        "generation": {"max_new_tokens": o.max_new_tokens, "stop_tokens": stops(model, tokenizer), "stop_strings": []},
        "report": {"impression_prefix": o.impression},
        "evidence": {"decoys": "decoys.safetensors"} if sighted else {},
        "labels": o.labels.split(","), **parts.more}
    seal(o.bundle, manifest)
    return manifest


def main(arguments: list[str]) -> None:
    o = options(arguments)
    if o.bundle.exists():
        sys.exit(f"convert: {o.bundle} is there already; remove it, or name another folder")
    if not o.chatxray.exists():
        sys.exit(f"convert: {o.chatxray} is absent: run `make build`, or say where it is with --chatxray")
    o.bundle.mkdir(parents=True)
    try:
        with torch.no_grad():
            convert(o)
        subprocess.run([str(o.chatxray), "bundles", "verify", str(o.bundle)], check=True)
    except BaseException as why:
        shutil.rmtree(o.bundle, ignore_errors=True)
        if isinstance(why, (Unsupported, OSError, subprocess.CalledProcessError)):
            sys.exit(f"convert: {o.source}: {why}")
        raise
    print(f"convert: {o.bundle}, {sum(p.stat().st_size for p in o.bundle.iterdir()) / 1e6:.0f} MB")
