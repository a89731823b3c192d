#!/usr/bin/env python3
"""Makes adapters for the tiny bundles of the tests of package modelrt, and what peft makes of them.

    adapters.py OUT       writes OUT/tiny/NAME, OUT/llama/NAME, OUT/llava/NAME (adapters) and OUT/BUNDLE.json.gz (golden values)

The base model is transformers' LlamaForCausalLM in float32 with the values of the bundle's own files; peft writes the adapters, with random numbers
in them, reads them back and gives the logits and 64 greedy tokens, without a cache. Of a bundle with images the prompt's embeddings are those of the golden values of
the bundle itself. Needs torch, transformers, peft, onnx, onnxruntime, gguf, safetensors, tokenizers.
"""
import gzip
import hashlib
import json
import os
import pathlib
import sys

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reports to its makers otherwise

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import numpy_helper
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))
from train.adapters import MODULES, sha256  # noqa: E402
from train.base import PANEL, Base  # noqa: E402

NEW = 64
#: What peft is told; each is another way to say where and how strong the additions are.
SETTINGS = {
    "wide": {"r": 4, "lora_alpha": 8, "target_modules": "all-linear"},
    "narrow": {"r": 3, "lora_alpha": 5, "use_rslora": True, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "uneven": {"r": 2, "lora_alpha": 2, "target_modules": ["k_proj", "gate_proj", "o_proj"], "rank_pattern": {"layers.1.self_attn.k_proj": 5},
               "alpha_pattern": {"layers.1.self_attn.k_proj": 9}},
}


def llama(decoder, vocab, inner, tied, values):
    """values(matrix, layer) gives [out, in] of a matrix by its name in a GGUF file."""
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab, hidden_size=decoder["hidden"], intermediate_size=inner, num_hidden_layers=decoder["layers"],
        num_attention_heads=decoder["heads"], num_key_value_heads=decoder["kv_heads"], head_dim=decoder["head_dim"],
        rope_theta=decoder["rope_theta"], rms_norm_eps=values("epsilon", None), tie_word_embeddings=tied, attn_implementation="eager"))
    state = {"model.norm.weight": values("output_norm", None), "model.embed_tokens.weight": values("token_embd", None)}
    if not tied:
        state["lm_head.weight"] = values("output", None)
    for layer in range(decoder["layers"]):
        for ours, theirs in {**MODULES, "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}.items():
            state[f"model.layers.{layer}.{theirs}.weight"] = values(ours, layer)
    missing = model.load_state_dict({k: torch.from_numpy(np.array(v, np.float32)) for k, v in state.items()}, strict=False)
    if missing.unexpected_keys or set(missing.missing_keys) - {"lm_head.weight"}:
        sys.exit(f"not a Llama: {missing}")
    return model.eval().requires_grad_(False)


def of_gguf(bundle, manifest):
    base = Base(bundle.parent / "tiny.gguf")

    def values(matrix, layer):
        if matrix == "epsilon":
            return base.epsilon
        if matrix == "token_embd":
            return base.embedding()
        name = f"{matrix}.weight" if layer is None else f"blk.{layer}.{matrix}.weight"
        return base.f32(name) if "norm" in name else base.matrix(name)

    return llama(manifest["decoder"], base.vocab, base.inner, True, values)


def of_graph(bundle, manifest):
    """The matrices of a flat graph, in the order of its nodes: query, key and value; output; gate and up; down."""
    d = manifest["decoder"]
    graph = onnx.load(str(bundle / "decoder.onnx")).graph
    constants = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    linears = [n for n in graph.node if n.op_type == "Linear"]

    def attribute(node, name):
        return next(onnx.helper.get_attribute_value(a) for a in node.attribute if a.name == name)

    def matrix(node):
        k, n = attribute(node, "k"), attribute(node, "n")
        return constants[node.input[1]].view(np.float32).reshape(-1, k, PANEL).transpose(0, 2, 1).reshape(-1, k)[:n]

    q, kv, inner = d["heads"] * d["head_dim"], d["kv_heads"] * d["head_dim"], attribute(linears[3], "k")
    rows = {"attn_q": (0, 0, q), "attn_k": (0, q, q + kv), "attn_v": (0, q + kv, q + 2 * kv), "attn_output": (1, 0, None),
            "ffn_gate": (2, 0, inner), "ffn_up": (2, inner, 2 * inner), "ffn_down": (3, 0, None)}

    def values(name, layer):
        if name == "epsilon":
            return attribute(linears[0], "epsilon")
        if name == "token_embd":
            return {t.name: numpy_helper.to_array(t) for t in onnx.load(str(bundle / "embed.onnx")).graph.initializer}["table"]
        if name == "output":
            return matrix(linears[-1])
        if "norm" in name:
            node = linears[-1] if layer is None else linears[4 * layer + (0 if name == "attn_norm" else 2)]
            return constants[node.input[2]]
        at, first, last = rows[name]
        return matrix(linears[4 * layer + at])[first:last]

    return llama(d, d["vocab"], inner, False, values)


def prompts(bundle, manifest, model):
    """Embeddings of the prompts that the bundle's own golden values are of."""
    embed = model.get_input_embeddings()
    if (bundle.parent / "tiny.json").exists():
        g = json.loads((bundle.parent / "tiny.json").read_text())
        image = torch.tensor(g["image_embeds"]).reshape(1, -1, manifest["decoder"]["hidden"])
        yield torch.cat([embed(torch.tensor([g["before"]])), image, embed(torch.tensor([g["after"]]))], 1)
        return
    for e in json.loads(gzip.decompress(bundle.with_suffix(".json.gz").read_bytes()))["images"]:
        x = embed(torch.tensor([e["ids"]]))
        if "image_features" in e:
            v = manifest["vision"]
            features = np.array(e["image_features"], np.float32).reshape(-1, v["feature_tokens"], v["feature_dim"])
            image = onnxruntime.InferenceSession(str(bundle / "adapter.onnx")).run(None, {"image_features": features})[0]
            token = json.loads((bundle / "tokenizer.json").read_text())["added_tokens"]
            token = next(t["id"] for t in token if t["content"] == manifest["prompt"]["image_token"])
            x[0, [i for i, t in enumerate(e["ids"]) if t == token]] = torch.from_numpy(image.reshape(-1, x.shape[-1]))
        yield x


def make(out, bundle, base_of, digest):
    manifest = json.loads((bundle / "manifest.json").read_text())
    torch.manual_seed(int(hashlib.sha256(bundle.name.encode()).hexdigest()[:8], 16))
    golden = {}
    for name, settings in SETTINGS.items():
        folder = out / bundle.name / name
        wrapped = get_peft_model(base_of(bundle, manifest), LoraConfig(task_type="CAUSAL_LM", **settings))
        with torch.no_grad():
            for key, p in wrapped.named_parameters():
                if "lora_" in key:
                    p.copy_(torch.randn(p.shape) * (1 if "lora_A" in key else 0.5) / p.shape[1] ** 0.5)
        wrapped.save_pretrained(str(folder))
        (folder / "README.md").unlink(missing_ok=True)
        config = json.loads((folder / "adapter_config.json").read_text())
        config["base_sha256"] = digest
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=1) + "\n")
        model = PeftModel.from_pretrained(base_of(bundle, manifest), str(folder)).eval()
        made = []
        with torch.no_grad():
            for x in prompts(bundle, manifest, model):
                ids, first, margin = [], None, np.inf
                while len(ids) < NEW:
                    logits = model(inputs_embeds=x).logits[0, -1]
                    first = logits if first is None else first
                    best = logits.topk(2).values
                    margin = min(margin, float(best[0] - best[1]))
                    ids.append(int(logits.argmax()))
                    x = torch.cat([x, model.get_input_embeddings()(torch.tensor([[ids[-1]]]))], 1)
                made.append({"first_logits": [float(f"{v:.7g}") for v in first], "greedy": ids})
                print(f"{bundle.name} {name}: least margin {margin:.1e}, spread {float(first.std()):.2f}, {len(set(ids))} distinct tokens")
        golden[name] = made
    with gzip.GzipFile(out / f"{bundle.name}.json.gz", "wb", mtime=0) as file:
        file.write(json.dumps(golden).encode())


def main(out):
    torch.set_num_threads(1)
    make(out, HERE / "tiny", of_gguf, sha256(HERE / "tiny.gguf"))
    make(out, HERE / "families" / "llama", of_graph, sha256(HERE / "families" / "llama" / "weights.bin"))
    make(out, HERE / "families" / "llava", of_graph, sha256(HERE / "families" / "llava" / "decoder.onnx"))


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
