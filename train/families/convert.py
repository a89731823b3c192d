"""``python -m train convert``: a bundle of a checkpoint.

The checkpoint is a folder as Hugging Face's save_pretrained writes it: config.json, weights, tokenizer, processor. It is
read from the disk, never fetched. Weights become float32; ``chatxray bundles quantize`` makes 4 or 8 bits of them."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file

from ..export import INTENDED_USE, seal
from ..settings import INSTRUCTION, REPOSITORY
from . import gqa
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
#: Systems with code of their own: module with load(), type and file of the tokenizer, our template.
OWN = {"qwen": ("qwenvl", "tiktoken_qwen_vl", "qwen.tiktoken", "qwenvl.jinja")}
#: Tokens that end an answer, where a vocabulary has them besides the configuration's own.
ENDS = ("<|im_end|>", "<end_of_turn>", "<|eot_id|>", "<|endoftext|>")
LABELS = ("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema", "Consolidation", "Pneumonia", "Atelectasis",
          "Pneumothorax", "Pleural Effusion", "Pleural Other", "Fracture", "Support Devices")


def options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m train convert", description="Makes a bundle of a checkpoint in Hugging Face's form. Types of models: " + ", ".join([*KINDS, *OWN]) + ".",
        epilog="Then: chatxray bundles verify OUT; chatxray bundles quantize OUT OUT-q4 --to q4; chatxray report --bundle OUT-q4 FILE.")
    parser.add_argument("--from", dest="source", type=Path, required=True, metavar="CHECKPOINT", help="folder with config.json, weights, tokenizer, processor")
    parser.add_argument("--bundle", type=Path, required=True, metavar="OUT", help="folder to make; it must not be there")
    parser.add_argument("--gpu", action="append", choices=gqa.FORMS, default=[], metavar="FORM",
                        help="a form for GPUs besides the CPU's: half (float16) or brain (bfloat16), 2 bytes a parameter more; standard is float32 of standard operators, for other programs. "
                        "May be given twice. Not for models whose positions or mask are not plain (Qwen2-VL, Gemma 3, Fuyu, BLIP-2)")
    parser.add_argument("--lora", type=Path, metavar="DIR", help="a LoRA as peft writes it, which is added to the weights")
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


@dataclass
class Checkpoint:
    model: object      # with the weights as they are stored
    export: object     # the family's
    processor: object  # or the tokenizer of a model of text; None where the system has its own
    template: str | None  # ours
    words: tuple[str, str] | None = None  # type and file of a tokenizer of the system's own


def checkpoint(source: Path) -> Checkpoint:
    import transformers

    kind = json.loads((source / "config.json").read_text()).get("model_type")
    if kind in OWN:
        name, *words, template = OWN[kind]
        model, export = importlib.import_module(f".{name}", __package__).load(source)
        return Checkpoint(model, export, None, template, tuple(words))
    if kind not in KINDS:
        raise Unsupported(f"models of the type {kind} are not converted; {', '.join([*KINDS, *OWN])} are")
    name, class_name, template = KINDS[kind]
    model = getattr(transformers, class_name).from_pretrained(source, local_files_only=True, dtype="auto", attn_implementation="eager")
    loader = transformers.AutoTokenizer if name == "llama" else transformers.AutoProcessor
    return Checkpoint(model, importlib.import_module(f".{name}", __package__).export, loader.from_pretrained(source, local_files_only=True), template)


def with_lora(model, folder: Path):
    """The model with a LoRA added to its weights, by peft."""
    from peft import PeftModel

    merged = PeftModel.from_pretrained(model, folder)
    if not any("lora_" in name for name, _ in merged.named_parameters()):
        raise Unsupported(f"{folder} adds nothing to this model")
    return merged.merge_and_unload(safe_merge=True)


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
    if tokenizer is None:  # Qwen's own
        return ["<|im_end|>", "<|endoftext|>"]
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


def card(o: argparse.Namespace, name: str, terms: str, forms: list[str], phantoms: bool) -> str:
    """The model card: what was done here, that nothing was measured, and below it the checkpoint's own."""
    theirs = o.source / "README.md"
    own = re.sub(r"\A---\n.*?\n---\n", "", theirs.read_text(), flags=re.DOTALL) if theirs.exists() else "It has none.\n"
    return f"""# {name}

{o.intended_use}

Made of the checkpoint `{o.source.resolve().name}`, revision {o.revision}, by `python -m train convert`{" with the LoRA `" + o.lora.resolve().name + "`" if o.lora else ""}. Licence: {terms}. Forms: {", ".join(forms)}.

**Nothing was measured on radiographs with this bundle.** How often its reports are wrong is not known; every one is a draft that a radiologist has to check against the image. Its findings head is absent, its
evidence is uncalibrated{", and compared with phantoms instead of other patients (convert again with `--decoys`)" if phantoms else ""}. The labels that its reports are said to speak of ({o.labels.replace(",", ", ")})
are a statement of whoever converted it.

## The checkpoint's own card

{own}"""


def convert(o: argparse.Namespace) -> dict:
    """Writes the bundle and returns its manifest."""
    if not (o.source / "config.json").exists():
        raise Unsupported("there is no config.json: it is no checkpoint as save_pretrained writes it")
    terms = o.license or license_of(o.source)
    absent = [str(f) for f in o.decoys if not f.is_file()]
    if absent or len({f.stem for f in o.decoys}) != len(o.decoys) or len(o.decoys) > 16:
        raise Unsupported("--decoys takes 1 to 16 files of different names" + (f"; there is no {', '.join(absent)}" if absent else ""))
    print(f"reading {o.source}", flush=True)
    found = checkpoint(o.source)
    processor, tokenizer = found.processor, getattr(found.processor, "tokenizer", found.processor)
    template = template_of(o.chat_template, processor, tokenizer, found.template)
    model = (with_lora(found.model, o.lora) if o.lora else found.model).eval().requires_grad_(False)
    ends = stops(model, tokenizer)
    name = o.name or re.sub(r"[^A-Za-z0-9._-]+", "-", o.source.resolve().name)
    print(f"{name}: {type(model).__name__}, {sum(p.numel() for p in model.parameters()) / 1e6:.0f} million parameters", flush=True)

    store = Store(o.bundle, apart=True)
    parts = found.export(model, processor, store, o.max_length)
    forms = [{"name": "fp32", "kind": "flat", "embed": "embed.onnx", "decoder": "decoder.onnx"}] + [gqa.export(form, parts, store) for form in o.gpu]
    store.close()
    sighted = parts.features is not None
    if found.words:
        kind, words = found.words
        shutil.copyfile(o.source / words, o.bundle / words)
    else:
        kind, words = write_tokenizer(tokenizer, o.bundle, sighted), "tokenizer.json"
    (o.bundle / "chat_template.jinja").write_text(template)
    if sighted:
        print(f"decoys: {len(o.decoys) or 'no'} radiographs{'' if o.decoys else ', phantoms instead'}", flush=True)
        save_file({"image_features": decoys(parts, o.decoys, o.chatxray)}, str(o.bundle / "decoys.safetensors"))
    (o.bundle / "README.md").write_text(card(o, name, terms, [f["name"] for f in forms], sighted and not o.decoys))
    begins = {f"{n}_token": t for n in ("bos", "eos") if (t := getattr(tokenizer, f"{n}_token", None))}
    more = {"images": o.images} if sighted and o.images > 1 else {}
    manifest = {
        "version": 1, "name": name, "revision": o.revision, "license": terms, "intended_use": o.intended_use,
        "training_data": o.training_data or f"See the model card of {name}.", "languages": o.languages.split(","),
        "family": parts.family, "preprocess": parts.preprocess,
        "graphs": {part: f"{part}.onnx" for part in ("vision", "adapter") if (o.bundle / f"{part}.onnx").exists()},
        "vision": parts.vision, "decoder": parts.decoder,
        "base": {"forms": forms},
        "tokenizer": {"type": kind, "file": words},
        "prompt": parts.prompt | {"chat_template": "chat_template.jinja", "instruction": o.instruction} | begins | more,
        "generation": {"max_new_tokens": o.max_new_tokens, "stop_tokens": ends, "stop_strings": []},
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
        if isinstance(why, (ValueError, ImportError, OSError, subprocess.CalledProcessError)):  # of transformers too, where a checkpoint needs what is not here
            sys.exit(f"convert: {o.source}: {why}")
        raise
    print(f"convert: {o.bundle}, {sum(p.stat().st_size for p in o.bundle.iterdir()) / 1e6:.0f} MB")
