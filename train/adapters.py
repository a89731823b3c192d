"""LoRA adapters in the layout of the package peft: adapter_config.json and adapter_model.safetensors."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

FOLDER = "adapters"  # of a bundle
#: Matrices of the GGUF file and modules of transformers' Llama.
MODULES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
           "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_SIDES = {"lora_a": "lora_A", "lora_b": "lora_B"}


def module(layer: str, matrix: str, side: str) -> str:
    return f"base_model.model.model.layers.{layer}.{MODULES[matrix]}.{_SIDES[side]}.weight"


def write(folder: Path, lora: dict[str, np.ndarray], base: Path, base_name: str) -> None:
    """``lora`` has blk.L.NAME.lora_a [r, in] and lora_b [out, r], the scale in lora_b: so it is 1 in the file, alpha being r."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {module(*name.split(".")[1:]): value for name, value in lora.items()}
    rank, = {len(v) for k, v in lora.items() if k.endswith(".lora_a")}
    targets = sorted({MODULES[k.split(".")[2]].split(".")[1] for k in lora})
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": base_name, "base_sha256": sha256(base),
              "r": rank, "lora_alpha": rank, "target_modules": targets, "bias": "none", "inference_mode": True}
    save_file(tensors, str(folder / "adapter_model.safetensors"), {"format": "pt"})
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")


def read(folder: Path) -> dict[str, np.ndarray]:
    """What write wrote, under the names of the GGUF file."""
    tensors = load_file(str(folder / "adapter_model.safetensors"))
    config = json.loads((folder / "adapter_config.json").read_text())
    if config["lora_alpha"] != config["r"]:
        raise ValueError(f"{folder}: its scale is not 1")
    names = {f"{m}.{s}": f"{matrix}.{side}" for matrix, m in MODULES.items() for side, s in _SIDES.items()}
    lora = {}
    for name, value in tensors.items():
        layer, rest = name.removeprefix("base_model.model.model.layers.").removesuffix(".weight").split(".", 1)
        lora[f"blk.{layer}.{names[rest]}"] = value
    return lora


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
