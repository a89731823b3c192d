#!/usr/bin/env python3
"""Makes tiny.heat.json: where each sentence about the picture of tiny.json rests on it, by PyTorch.

    heat.py        beside tiny, tiny.gguf and tiny.json

The same occlusion, written anew: transformers reads the GGUF file and the LoRA is added to its weights; the adapter is PyTorch with the weights of
adapter.onnx; the features are those of tiny.json. For each window of the 4 by 4 grid the features there become the mean of the decoys'.
Needs torch, transformers, accelerate, gguf, onnx, safetensors, tokenizers.
"""
import json
import pathlib

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from onnx import numpy_helper
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
NAMES = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj"}
SENTENCES = ("The heart is enlarged.", "The lungs are clear.", "There is a small pleural effusion.", "Cardiomegaly and pleural effusion.")


def language():
    model = AutoModelForCausalLM.from_pretrained(str(HERE), gguf_file="tiny.gguf", dtype=torch.float32).eval()
    parameters, lora = dict(model.named_parameters()), load_file(str(HERE / "tiny" / "lora.safetensors"))
    for key, a in lora.items():
        if key.endswith(".lora_a"):
            layer, name = key.split(".")[1:3]
            b = lora[key.removesuffix("a") + "b"]
            parameters[f"model.layers.{layer}.{NAMES[name]}.weight"] += torch.from_numpy(b.astype(np.float32)) @ torch.from_numpy(a.astype(np.float32))
    return model


def adapter():
    weights = {i.name.removesuffix("_f16"): torch.from_numpy(numpy_helper.to_array(i).astype(np.float32))
               for i in onnx.load(HERE / "tiny" / "adapter.onnx").graph.initializer}
    return lambda x: F.relu(weights["pool"] @ x @ weights["up_w"] + weights["up_b"]) @ weights["out_w"] + weights["out_b"]


def spans(tok, ids, text):
    """(first, behind the last) token of each sentence."""
    ends = np.cumsum([len(tok.decode([i])) for i in ids])  # ASCII, byte-level: lengths of pieces add up
    out = []
    for s in SENTENCES:
        at = text.index(s)
        out.append((int(np.searchsorted(ends, at, "right")), int(np.searchsorted(ends, at + len(s) - 1, "right")) + 1))
    return out


@torch.no_grad()
def main():
    golden = json.loads((HERE / "tiny.json").read_text())
    model, adapt, ids = language(), adapter(), golden["greedy"]
    embed = model.get_input_embeddings()
    tok = Tokenizer.from_file(str(HERE / "tiny" / "tokenizer.json"))

    def score(features):
        prompt = torch.cat([embed(torch.tensor(golden["before"])), adapt(features), embed(torch.tensor(golden["after"]))])
        x = torch.cat([prompt, embed(torch.tensor(ids[:-1]))])[None]
        logits = model(inputs_embeds=x).logits[0, len(prompt) - 1:]
        return torch.log_softmax(logits.double(), -1)[torch.arange(len(ids)), torch.tensor(ids)]

    features = torch.tensor(golden["image_features"]).reshape(17, 16)
    usual = torch.from_numpy(load_file(str(HERE / "tiny" / "decoys.safetensors"))["image_features"].astype(np.float32)).mean(0)
    whole = score(features)
    assert torch.allclose(whole, torch.tensor(golden["logprobs"][0]).double(), atol=1e-3)  # the model is that of tiny.json
    maps = np.zeros((len(SENTENCES), 4, 4))
    for y in range(4):  # windows of one place each
        for x in range(4):
            without = features.clone()
            without[1 + 4 * y + x] = usual[1 + 4 * y + x]
            fall = (whole - score(without)).numpy()
            for i, (first, behind) in enumerate(spans(tok, ids, golden["text"])):
                maps[i, y, x] = fall[first:behind].sum()
    (HERE / "tiny.heat.json").write_text(json.dumps({"sentences": SENTENCES, "heat": maps.round(7).reshape(len(SENTENCES), -1).tolist()}) + "\n")
    print(maps.round(2))


if __name__ == "__main__":
    main()
