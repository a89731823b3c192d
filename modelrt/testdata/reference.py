#!/usr/bin/env python3
"""Makes the golden values of a whole bundle for the tests of package modelrt.

    reference.py BUNDLE BASE.gguf OUT.json

The language model is transformers' LlamaForCausalLM in float32, without a cache: transformers reads the GGUF file itself and
peft the adapter, so that nothing of our own conversion, graphs or decode loop is in the values. The image
features come from vision.onnx and adapter.onnx by ONNX Runtime in Python on the picture that the Go test draws.
Run it again when the bundle changes: the test compares the manifest's digest. Needs torch, transformers, peft, accelerate, gguf,
onnxruntime, safetensors, tokenizers.
"""
import hashlib
import json
import os
import pathlib
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reports to its makers otherwise

import jinja2
import numpy as np
import onnxruntime
import torch
from peft import PeftModel
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM

TOKENS, TOP = 24, 16


def shades(side):
    """The picture of the Go test, at the size of the tensor: no resampling comes into the comparison."""
    y, x = np.mgrid[0:side, 0:side]
    i = y * side + x
    cx, cy = x - side // 2, y - side // 2
    return np.maximum(0, 230 - (cx * cx + cy * cy) // 200 + i % 7).astype(np.uint8)


def main(bundle, base, out):
    torch.set_num_threads(1)
    manifest_bytes = (bundle / "manifest.json").read_bytes()
    manifest = json.loads(manifest_bytes)
    model = AutoModelForCausalLM.from_pretrained(str(base.parent), gguf_file=base.name, dtype=torch.float32).eval()
    if adapter := manifest["base"].get("adapter"):
        model = PeftModel.from_pretrained(model, str(bundle / "adapters" / adapter)).eval()

    pre = manifest["preprocess"]
    if (pre["width"], pre["channels"], pre["fit"]) != (pre["height"], 1, "squash"):
        sys.exit("this script knows square gray tensors only")
    gray = shades(pre["width"]).astype(np.float32) / np.float32(255)
    pixels = ((gray - np.float32(pre["mean"][0])) / np.float32(pre["std"][0])).astype(np.float32)[None, None]
    run = lambda graph, feed: onnxruntime.InferenceSession(str(bundle / manifest["graphs"][graph])).run(None, feed)
    features = run("vision", {"pixel_values": pixels})[0]
    blank = run("vision", {"pixel_values": np.full_like(pixels, -pre["mean"][0] / pre["std"][0])})[0]
    decoys = load_file(str(bundle / manifest["evidence"]["decoys"]))["image_features"].astype(np.float32)
    rows = [features, *(d[None] for d in decoys), blank]
    tok = Tokenizer.from_file(str(bundle / manifest["tokenizer"]["file"]))
    said = jinja2.Environment(trim_blocks=True, lstrip_blocks=True).from_string((bundle / manifest["prompt"]["chat_template"]).read_text()).render(
        messages=[{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": manifest["prompt"]["instruction"]}]}],
        add_generation_prompt=True)
    before, after = (tok.encode(t, add_special_tokens=False).ids
                     for t in said.split(manifest["prompt"]["sentinel"]))
    embed = model.get_input_embeddings()

    def prompt(features):
        image = torch.from_numpy(run("adapter", {"image_features": features})[0])
        return torch.cat([embed(torch.tensor([before])), image, embed(torch.tensor([after]))], 1)

    with torch.no_grad():
        x, ids, tops = prompt(features), [], []
        while len(ids) < TOKENS:
            logits = model(inputs_embeds=x).logits[0, -1]
            if not ids:
                top = logits.topk(TOP)
                tops = [[int(i), float(v)] for v, i in zip(*top)]
            ids.append(int(logits.argmax()))
            x = torch.cat([x, embed(torch.tensor([[ids[-1]]]))], 1)
        logprobs = []
        for row in rows:
            p = prompt(row)
            logits = model(inputs_embeds=torch.cat([p, embed(torch.tensor([ids[:-1]]))], 1)).logits[0, p.shape[1] - 1:]
            logprobs.append([round(float(v), 6) for v in torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(ids)]])
    json.dump({"manifest_sha256": hashlib.sha256(manifest_bytes).hexdigest(), "before": before, "after": after,
               "top_logits": tops, "greedy": ids, "logprobs": logprobs}, open(out, "w"))
    print(tok.decode(ids))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
