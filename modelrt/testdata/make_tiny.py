#!/usr/bin/env python3
"""Makes the tiny model bundle of the tests of package modelrt, its GGUF base model and the golden values.

    make_tiny.py OUT        writes OUT/tiny (the bundle), OUT/tiny.gguf, OUT/tiny.json (golden values)

Everything is learned within a minute from squares drawn on a noisy 32 by 32 picture: a two-layer Llama writes one of
eight reports. The base model is quantised as the real one is (Q4_1, embedding Q8_0), a LoRA is trained on top of the
quantised weights, and the golden values come from transformers' LlamaForCausalLM in float32 with both merged, never
from ONNX Runtime. The language model's graphs are those of train/ (train/graphs.py). Needs torch, transformers, tokenizers, onnx, gguf, safetensors.
"""
import itertools
import json
import pathlib
import sys

import gguf
import numpy as np
import torch
import torch.nn.functional as F
from gguf import quants
from onnx import TensorProto as T
from onnx import helper, numpy_helper
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from train import adapters  # noqa: E402
from train.base import Base  # noqa: E402
from train.export import language_forms, seal  # noqa: E402

SIDE, PATCH, DV, IMAGE_TOKENS = 32, 8, 16, 4
LAYERS, HEADS, KV, HEAD, HIDDEN, FFN, CONTEXT, RANK = 2, 4, 2, 16, 64, 128, 128, 4
THETA, EPS = 10000.0, 1e-5
FINDINGS = ["Cardiomegaly", "Lung Opacity", "Pleural Effusion"]
BEFORE, AFTER = "<|im_start|>user\n", "\nDescribe it.<|im_end|>\n<|im_start|>assistant\n"
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
PROJECTIONS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
TORCH_NAMES = dict(zip(PROJECTIONS, (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")))
ADAPTED = ("attn_q", "attn_k", "attn_v", "attn_output")


def report(heart, opacity, effusion):
    lines = ["The heart is enlarged." if heart else "The heart size is normal.",
             "There is an opacity in the left lung." if opacity else "The lungs are clear.",
             "There is a small pleural effusion." if effusion else "There is no pleural effusion."]
    said = [n for n, on in (("cardiomegaly", heart), ("lung opacity", opacity), ("pleural effusion", effusion)) if on]
    return " ".join(lines) + "\nImpression: " + (" and ".join(said).capitalize() if said else "No acute finding") + "."


def picture(rng, heart, opacity, effusion):
    """8-bit gray: noise, and a bright square for each finding."""
    gray = rng.integers(40, 90, (SIDE, SIDE))
    if heart:
        gray[12:24, 10:24] += 120
    if opacity:
        gray[2:10, 20:30] += 120
    if effusion:
        gray[25:32, 1:12] += 120
    return gray.astype(np.uint8)


def pixels(gray):
    return torch.from_numpy((gray.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5))[None, None]


class Vision(nn.Module):
    def __init__(self):
        super().__init__()
        self.patch = nn.Conv2d(1, DV, PATCH, PATCH)
        self.position = nn.Parameter(torch.randn((SIDE // PATCH) ** 2, DV) * 0.02)
        self.mix = nn.Linear(DV, DV)
        self.head = nn.Linear((SIDE // PATCH) ** 2 * DV, len(FINDINGS))

    def forward(self, x):
        tokens = self.patch(x).flatten(2).transpose(1, 2) + self.position
        tokens = tokens + F.relu(self.mix(tokens))
        features = torch.cat([tokens.mean(1, keepdim=True), tokens], 1)
        return features, self.head(tokens.flatten(1))


class Adapter(nn.Module):
    def __init__(self):
        super().__init__()
        n = (SIDE // PATCH) ** 2 + 1
        self.pool = nn.Parameter(torch.randn(IMAGE_TOKENS, n) * 0.2)
        self.up = nn.Linear(DV, HIDDEN)
        self.out = nn.Linear(HIDDEN, HIDDEN)

    def forward(self, features):
        return self.out(F.relu(self.up(self.pool @ features)))


def tokenizer(path):
    texts = [report(*c) for c in itertools.product((0, 1), repeat=3)] + [BEFORE, AFTER]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=352, special_tokens=SPECIALS, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet())))
    tok.save(str(path))
    return tok


def llama(vocab):
    return LlamaForCausalLM(LlamaConfig(
        vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=FFN, num_hidden_layers=LAYERS,
        num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=HEAD, max_position_embeddings=CONTEXT,
        rms_norm_eps=EPS, rope_theta=THETA, tie_word_embeddings=True, attention_bias=False, mlp_bias=False))


class Lora(nn.Module):
    """A linear layer with frozen weights and a low-rank addition, scale 1."""

    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Parameter(torch.randn(RANK, base.in_features) * 0.05)
        self.b = nn.Parameter(torch.zeros(base.out_features, RANK))

    def forward(self, x):
        return self.base(x) + (x @ self.a.T) @ self.b.T


def train(vision, adapter, lm, tok, steps, rate, seed):
    rng = np.random.default_rng(seed)
    combos = list(itertools.product((0, 1), repeat=3))
    before, after = (torch.tensor(tok.encode(s, add_special_tokens=False).ids) for s in (BEFORE, AFTER))
    answers = [tok.encode(report(*c)).ids + [tok.token_to_id("<|im_end|>")] for c in combos]
    longest = max(map(len, answers))
    parameters = [p for m in (vision, adapter, lm) for p in m.parameters() if p.requires_grad]
    best = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    plan = torch.optim.lr_scheduler.OneCycleLR(best, rate, total_steps=steps)
    embed = lm.get_input_embeddings()
    for step in range(steps):
        which = rng.integers(0, len(combos), 32)
        x = torch.cat([pixels(picture(rng, *combos[w])) for w in which])
        y = torch.tensor([combos[w] for w in which], dtype=torch.float32)
        ids = torch.tensor([answers[w] + [0] * (longest - len(answers[w])) for w in which])
        features, logits = vision(x)
        prompt = torch.cat([embed(before).expand(32, -1, -1), adapter(features), embed(after).expand(32, -1, -1)], 1)
        out = lm(inputs_embeds=torch.cat([prompt, embed(ids)], 1)).logits[:, prompt.shape[1] - 1:-1]
        mask = torch.tensor([[i < len(answers[w]) for i in range(longest)] for w in which])
        loss = F.cross_entropy(out[mask], ids[mask]) + F.binary_cross_entropy_with_logits(logits, y)
        best.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        best.step()
        plan.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f}", flush=True)


def halves(module):
    """Rounds the weights to float16, as the bundle stores them."""
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(p.half().float())


def permuted(w, heads):
    """Row order of llama.cpp for query and key (interleaved rope) from the half-split order of transformers."""
    return w.reshape(heads, 2, w.shape[0] // heads // 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def restored(w, heads):
    return w.reshape(heads, w.shape[0] // heads // 2, 2, w.shape[1]).swapaxes(1, 2).reshape(w.shape)


def write_gguf(path, lm, vocab):
    """Writes the base model and returns the dequantised weights: [out, in], rows in the order of transformers."""
    out = gguf.GGUFWriter(str(path), "llama")
    out.add_block_count(LAYERS)
    out.add_context_length(CONTEXT)
    out.add_embedding_length(HIDDEN)
    out.add_feed_forward_length(FFN)
    out.add_head_count(HEADS)
    out.add_head_count_kv(KV)
    out.add_rope_freq_base(THETA)
    out.add_layer_norm_rms_eps(EPS)
    out.add_vocab_size(vocab)
    out.add_token_list([f"t{i}" for i in range(vocab)])
    plain = {}

    def quantised(name, w, kind):
        packed = quants.quantize(w, kind)
        out.add_tensor(name, packed, raw_dtype=kind)
        return quants.dequantize(packed, kind).astype(np.float32)

    state = {k: v.detach().numpy().astype(np.float32) for k, v in lm.state_dict().items()}
    plain["token_embd.weight"] = quantised("token_embd.weight", state["model.embed_tokens.weight"],
                                           gguf.GGMLQuantizationType.Q8_0)
    for layer in range(LAYERS):
        for name, torch_name in (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm")):
            key = f"blk.{layer}.{name}.weight"
            plain[key] = state[f"model.layers.{layer}.{torch_name}.weight"]
            out.add_tensor(key, plain[key])
        for name in PROJECTIONS:
            w = state[f"model.layers.{layer}.{TORCH_NAMES[name]}.weight"]
            heads = {"attn_q": HEADS, "attn_k": KV}.get(name)
            key = f"blk.{layer}.{name}.weight"
            w = quantised(key, permuted(w, heads) if heads else w, gguf.GGMLQuantizationType.Q4_1)
            plain[key] = restored(w, heads) if heads else w
    plain["output_norm.weight"] = state["model.norm.weight"]
    out.add_tensor("output_norm.weight", plain["output_norm.weight"])
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return plain


class Graph:
    """Collects nodes and initializers of one ONNX graph."""

    def __init__(self):
        self.nodes, self.initializers, self.inputs, self.outputs = [], {}, [], []

    def node(self, op, inputs, outputs, domain="", **attributes):
        outputs = [outputs] if isinstance(outputs, str) else outputs
        self.nodes.append(helper.make_node(op, inputs, outputs, domain=domain, **attributes))
        return outputs[0]

    def constant(self, name, value):
        self.initializers.setdefault(name, numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def half(self, name, value):
        """A float16 initializer, cast to float32 in the graph."""
        self.constant(name + "_f16", value.detach().numpy().astype(np.float16))
        return self.node("Cast", [name + "_f16"], name, to=T.FLOAT)

    def save(self, name, path):
        graph = helper.make_graph(self.nodes, name,
                                  [helper.make_tensor_value_info(*i) for i in self.inputs],
                                  [helper.make_tensor_value_info(*o) for o in self.outputs],
                                  list(self.initializers.values()))
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)])
        model.ir_version = 8
        path.write_bytes(model.SerializeToString())


def export_vision(vision, path):
    g, n = Graph(), (SIDE // PATCH) ** 2
    g.inputs = [("pixel_values", T.FLOAT, ["B", 1, SIDE, SIDE])]
    g.outputs = [("image_features", T.FLOAT, ["B", n + 1, DV]), ("findings_logits", T.FLOAT, ["B", len(FINDINGS)]),
                 ("view_logits", T.FLOAT, ["B", 2])]
    g.node("Conv", ["pixel_values", g.half("patch_w", vision.patch.weight), g.half("patch_b", vision.patch.bias)], "patches",
           kernel_shape=[PATCH, PATCH], strides=[PATCH, PATCH])
    g.node("Reshape", ["patches", g.constant("s", np.array([0, DV, n], np.int64))], "rows")
    g.node("Transpose", ["rows"], "tokens", perm=[0, 2, 1])
    g.node("Add", ["tokens", g.half("position", vision.position)], "placed")
    g.node("MatMul", ["placed", g.half("mix_w", vision.mix.weight.T)], "mixed")
    g.node("Add", ["mixed", g.half("mix_b", vision.mix.bias)], "mixed_b")
    g.node("Relu", ["mixed_b"], "relu")
    g.node("Add", ["placed", "relu"], "out")
    g.node("ReduceMean", ["out"], "mean", axes=[1], keepdims=1)
    g.node("Concat", ["mean", "out"], "image_features", axis=1)
    g.node("Flatten", ["out"], "flat")
    g.node("Gemm", ["flat", g.half("head_w", vision.head.weight), g.half("head_b", vision.head.bias)], "findings_logits", transB=1)
    # A picture whose mean gray is above three quarters (0.5 after mean and std) is called lateral.
    g.node("ReduceMean", ["pixel_values"], "bright", axes=[1, 2, 3], keepdims=0)
    g.node("Unsqueeze", ["bright", g.constant("column", np.array([1], np.int64))], "bright_column")
    g.node("Gemm", ["bright_column", g.constant("view_w", np.array([[0, 20]], np.float32)),
                    g.constant("view_b", np.array([0, -10], np.float32))], "view_logits")
    g.save("vision", path)


def export_adapter(adapter, path):
    g = Graph()
    g.inputs = [("image_features", T.FLOAT, ["B", (SIDE // PATCH) ** 2 + 1, DV])]
    g.outputs = [("image_embeds", T.FLOAT, ["B", IMAGE_TOKENS, HIDDEN])]
    g.node("MatMul", [g.half("pool", adapter.pool), "image_features"], "pooled")
    g.node("MatMul", ["pooled", g.half("up_w", adapter.up.weight.T)], "up")
    g.node("Add", ["up", g.half("up_b", adapter.up.bias)], "up_b_")
    g.node("Relu", ["up_b_"], "relu")
    g.node("MatMul", ["relu", g.half("out_w", adapter.out.weight.T)], "out")
    g.node("Add", ["out", g.half("out_b", adapter.out.bias)], "image_embeds")
    g.save("adapter", path)


def golden(vision, adapter, lm, tok, rng, blank, decoys):
    """Values of one picture by transformers, float32, no cache."""
    embed, end = lm.get_input_embeddings(), tok.token_to_id("<|im_end|>")
    before, after = (tok.encode(s, add_special_tokens=False).ids for s in (BEFORE, AFTER))
    gray = picture(rng, 1, 0, 1)
    features, logits = vision(pixels(gray))

    def prompt(features):
        return torch.cat([embed(torch.tensor([before])), adapter(features), embed(torch.tensor([after]))], 1)

    ids, x = [], prompt(features)
    first = lm(inputs_embeds=x).logits[0, -1]
    while len(ids) < 60:
        token = int(lm(inputs_embeds=x).logits[0, -1].argmax())
        if token == end:
            break
        ids.append(token)
        x = torch.cat([x, embed(torch.tensor([[token]]))], 1)

    def scores(features):
        p = prompt(features)
        out = lm(inputs_embeds=torch.cat([p, embed(torch.tensor([ids[:-1]]))], 1)).logits[0, p.shape[1] - 1:]
        return torch.log_softmax(out, -1)[torch.arange(len(ids)), torch.tensor(ids)]

    rows = [features, *decoys, blank]
    flat = lambda t: [round(float(v), 7) for v in t.flatten()]
    return dict(gray=gray.flatten().tolist(), findings_logits=flat(logits), image_features=flat(features),
                image_embeds=flat(adapter(features)), before=before, after=after, first_logits=flat(first), greedy=ids,
                text=tok.decode(ids), logprobs=[flat(scores(r)) for r in rows])


def main(out):
    torch.manual_seed(7)
    torch.set_num_threads(1)
    bundle = out / "tiny"
    bundle.mkdir(parents=True, exist_ok=True)
    tok = tokenizer(bundle / "tokenizer.json")
    vocab = tok.get_vocab_size()
    vision, adapter, lm = Vision(), Adapter(), llama(vocab)
    train(vision, adapter, lm, tok, 500, 4e-3, 1)
    plain = write_gguf(out / "tiny.gguf", lm, vocab)
    with torch.no_grad():
        state = lm.state_dict()
        for key, w in plain.items():
            if key.startswith("blk.") and not key.endswith("norm.weight"):
                layer, name = key.split(".")[1:3]
                state[f"model.layers.{layer}.{TORCH_NAMES[name]}.weight"].copy_(torch.from_numpy(w))
        state["model.embed_tokens.weight"].copy_(torch.from_numpy(plain["token_embd.weight"]))
    lm.requires_grad_(False)
    adapted = {}
    for layer, block in enumerate(lm.model.layers):
        for name in ADAPTED:
            attribute = TORCH_NAMES[name].split(".")[1]
            adapted[f"blk.{layer}.{name}"] = Lora(getattr(block.self_attn, attribute))
            setattr(block.self_attn, attribute, adapted[f"blk.{layer}.{name}"])
    train(vision, adapter, lm, tok, 300, 2e-3, 2)
    for module in (vision, adapter, *adapted.values()):
        module.eval()
    lora = {}
    with torch.no_grad():
        halves(vision)
        halves(adapter)
        for key, module in adapted.items():
            lora[key + ".lora_a"], lora[key + ".lora_b"] = (p.detach().numpy().astype(np.float16) for p in (module.a, module.b))
    adapters.write(bundle / "adapters" / "report", lora, out / "tiny.gguf", "tiny")

    forms = language_forms(bundle, Base(out / "tiny.gguf"), lora, CONTEXT)
    export_vision(vision, bundle / "vision.onnx")
    export_adapter(adapter, bundle / "adapter.onnx")
    with torch.no_grad():
        for layer, block in enumerate(lm.model.layers):
            for name in ADAPTED:
                attribute, key = TORCH_NAMES[name].split(".")[1], f"blk.{layer}.{name}"
                merged = nn.Linear(adapted[key].base.in_features, adapted[key].base.out_features, bias=False)
                merged.weight.copy_(adapted[key].base.weight + adapted[key].b @ adapted[key].a)
                setattr(block.self_attn, attribute, merged)
        rng = np.random.default_rng(3)
        decoys = [vision(pixels(picture(rng, *c)))[0].half() for c in ((0, 0, 0), (0, 1, 0))]
        save_file({"image_features": torch.cat(decoys).numpy()}, str(bundle / "decoys.safetensors"))
        blank = vision(pixels(np.zeros((SIDE, SIDE), np.uint8)))[0]
        values = golden(vision, adapter, lm.eval(), tok, rng, blank, [d.float() for d in decoys])
    (out / "tiny.json").write_text(json.dumps(values))
    print(values["text"])

    (bundle / "chat_template.jinja").write_text(pathlib.Path("train/chatml.jinja").read_text())
    (bundle / "README.md").write_text("The tiny bundle of the tests: it reads squares, not radiographs.\n")
    manifest = {
        "version": 1, "name": "tiny", "revision": "1", "license": "Apache-2.0", "intended_use": "tests",
        "training_data": "squares drawn by make_tiny.py", "languages": ["en"],
        "preprocess": {"width": SIDE, "height": SIDE, "channels": 1, "fit": "squash", "interpolation": "bicubic",
                       "mean": [0.5], "std": [0.5], "voi": "default"},
        "graphs": {"vision": "vision.onnx", "adapter": "adapter.onnx"},
        "vision": {"feature_tokens": (SIDE // PATCH) ** 2 + 1, "feature_dim": DV, "image_tokens": IMAGE_TOKENS,
                   "findings": FINDINGS, "views": ["frontal", "lateral"]},
        "decoder": {"layers": LAYERS, "heads": HEADS, "kv_heads": KV, "head_dim": HEAD, "hidden": HIDDEN, "vocab": vocab,
                    "max_length": CONTEXT, "rope_theta": THETA},
        "base": {"part": "tiny-gguf", "sha256": adapters.sha256(out / "tiny.gguf"), "adapter": "report", "forms": forms},
        "tokenizer": {"type": "byte_level_bpe", "file": "tokenizer.json"},
        "prompt": {"splice": "replace_sentinel", "sentinel": "<image>", "chat_template": "chat_template.jinja", "instruction": "Describe it."},
        "generation": {"max_new_tokens": 60, "stop_tokens": ["<|im_end|>", "<|endoftext|>"], "stop_strings": []},
        "report": {"impression_prefix": "Impression:"},
        "evidence": {"decoys": "decoys.safetensors"},
        "labels": ["No Finding", *FINDINGS],
    }
    seal(bundle, manifest)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
