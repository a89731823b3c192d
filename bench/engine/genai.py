#!/usr/bin/env python3
"""Writes a model folder for onnxruntime-genai from a GGUF file of a Llama with Q4_1 matrices and a tied Q8_0 embedding: `genai.py GGUF FOLDER`.

The graph is what its builder makes of a Llama in int4 with accuracy_level 1, that is float32 activations: MatMulNBits, GroupQueryAttention and the norms of
com.microsoft. Scales and whole numbers are the file's. MatMulNBits has whole zero points where Q4_1 has minima (with zero points of float32 it
dequantises each matrix for each token), so they are rounded: other texts, the same work. The output matrix has 4 bits, as the builder makes it, where
the file has 8: half of the bytes to read. --head 8 keeps them, and is ten times slower, since ONNX Runtime then dequantises that matrix for each token."""
import argparse
import json
import pathlib

import gguf
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

parser = argparse.ArgumentParser()
parser.add_argument("gguf")
parser.add_argument("folder", type=pathlib.Path)
parser.add_argument("--head", type=int, choices=(4, 8), default=4)
args = parser.parse_args()

reader = gguf.GGUFReader(args.gguf)
tensors = {t.name: t for t in reader.tensors}


def number(key: str) -> float:
    return reader.fields[key].parts[-1][0]


layers, hidden = int(number("llama.block_count")), int(number("llama.embedding_length"))
heads, kv_heads = int(number("llama.attention.head_count")), int(number("llama.attention.head_count_kv"))
epsilon, theta, dim = float(number("llama.attention.layer_norm_rms_epsilon")), float(number("llama.rope.freq_base")), hidden // heads
LENGTH = 2048
nodes, constants = [], []


def constant(name: str, value: np.ndarray) -> str:
    constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
    return name


def node(op: str, inputs: list[str], *outputs: str, domain: str = "", **attributes) -> str:
    nodes.append(helper.make_node(op, inputs, list(outputs), domain=domain, name=outputs[0], **attributes))
    return outputs[0]


def four_bits(*names: str):
    """Blocks of Q4_1 matrices one below the other as MatMulNBits has them."""
    raw = np.concatenate([tensors[n].data for n in names])
    rows = raw.shape[0]
    blocks = raw.reshape(rows, -1, 20)
    d = blocks[..., :2].copy().view(np.float16)[..., 0].astype(np.float32)
    m = blocks[..., 2:4].copy().view(np.float16)[..., 0].astype(np.float32)
    q = np.concatenate([blocks[..., 4:] & 15, blocks[..., 4:] >> 4], -1)
    zero = np.clip(np.rint(np.divide(-m, d, out=np.zeros_like(m), where=d != 0)), 0, 15).astype(np.uint8)
    return q, d, zero


def pack(q: np.ndarray) -> np.ndarray:
    if q.shape[-1] % 2:
        q = np.concatenate([q, np.zeros_like(q[..., :1])], -1)
    return q[..., ::2] | q[..., 1::2] << 4


def product(x: str, out: str, *names: str) -> str:
    q, d, zero = four_bits(*names)
    rows, blocks = d.shape
    inputs = [x, constant(out + ".q", pack(q)), constant(out + ".d", d.reshape(-1)), constant(out + ".z", pack(zero).reshape(-1))]
    return node("MatMulNBits", inputs, out, domain="com.microsoft", K=blocks * 32, N=rows, bits=4, block_size=32, accuracy_level=1)


def vector(name: str) -> str:
    return constant(name, np.asarray(tensors[name].data, np.float32))


head = tensors["token_embd.weight"].data.reshape(-1, hidden // 32, 34)
scale = head[..., :2].copy().view(np.float16)[..., 0].astype(np.float32)
whole = head[..., 2:].view(np.int8)
words = len(head)
table = constant("table", (whole * scale[..., None]).reshape(words, hidden).astype(np.float32))
angles = np.outer(np.arange(LENGTH), theta ** (-np.arange(0, dim, 2) / dim))
cosines, sines = constant("cos", np.cos(angles).astype(np.float32)), constant("sin", np.sin(angles).astype(np.float32))

sums = node("ReduceSum", ["attention_mask", constant("axis", np.array([1]))], "filled", keepdims=1)
lengths = node("Cast", [node("Sub", [sums, constant("one", np.array([1]))], "last")], "seqlens_k", to=TensorProto.INT32)
total = node("Cast", [node("Gather", [node("Shape", ["attention_mask"], "shape"), constant("second", np.array(1))], "width")], "total", to=TensorProto.INT32)
x = node("Gather", [table, "input_ids"], "embedded")
skip = x
x = node("SimplifiedLayerNormalization", [x, vector("blk.0.attn_norm.weight")], "norm", axis=-1, epsilon=epsilon, stash_type=1)
borders = []
for i in range(layers):
    p, cache = f"blk.{i}.", [f"past_key_values.{i}.key", f"past_key_values.{i}.value", f"present.{i}.key", f"present.{i}.value"]
    borders.append(cache)
    qkv = product(x, p + "qkv", p + "attn_q.weight", p + "attn_k.weight", p + "attn_v.weight")
    # The file's rows of query and key are in the order for interleaved rope.
    mixed = node("GroupQueryAttention", [qkv, "", "", *cache[:2], lengths, total, cosines, sines], p + "mixed", *cache[2:], domain="com.microsoft",
                 num_heads=heads, kv_num_heads=kv_heads, do_rotary=1, rotary_interleaved=1, scale=dim ** -0.5)
    out = product(mixed, p + "out", p + "attn_output.weight")
    x = node("SkipSimplifiedLayerNormalization", [skip, out, vector(p + "ffn_norm.weight")], p + "norm", "", "", p + "middle", domain="com.microsoft", epsilon=epsilon)
    gate, up = product(x, p + "gate", p + "ffn_gate.weight"), product(x, p + "up", p + "ffn_up.weight")
    gated = node("Mul", [node("Mul", [gate, node("Sigmoid", [gate], p + "sigmoid")], p + "silu"), up], p + "gated")
    down = product(gated, p + "down", p + "ffn_down.weight")
    last = i == layers - 1
    scale_name = "output_norm.weight" if last else f"blk.{i + 1}.attn_norm.weight"
    outputs = [p + "after"] if last else [p + "after", "", "", p + "end"]
    x = node("SkipSimplifiedLayerNormalization", [p + "middle", down, vector(scale_name)], *outputs, domain="com.microsoft", epsilon=epsilon)
    skip = p + "end"
if args.head == 8:
    inputs = [x, constant("head.q", (whole.astype(np.int16) + 128).astype(np.uint8)), constant("head.d", scale.reshape(-1))]
    node("MatMulNBits", inputs, "logits", domain="com.microsoft", K=hidden, N=words, bits=8, block_size=32, accuracy_level=1)
else:
    inputs = [x, constant("head.q", pack((np.clip(np.rint(whole / 16), -8, 7) + 8).astype(np.uint8))), constant("head.d", scale.reshape(-1) * 16)]
    node("MatMulNBits", inputs, "logits", domain="com.microsoft", K=hidden, N=words, bits=4, block_size=32, accuracy_level=1)

floats, whole_numbers = TensorProto.FLOAT, TensorProto.INT64
inputs = [helper.make_tensor_value_info("input_ids", whole_numbers, ["batch", "length"]), helper.make_tensor_value_info("attention_mask", whole_numbers, ["batch", "all"])]
outputs = [helper.make_tensor_value_info("logits", floats, ["batch", "length", words])]
for key, value, new_key, new_value in borders:
    inputs += [helper.make_tensor_value_info(n, floats, ["batch", kv_heads, "past", dim]) for n in (key, value)]
    outputs += [helper.make_tensor_value_info(n, floats, ["batch", kv_heads, "all", dim]) for n in (new_key, new_value)]
graph = helper.make_graph(nodes, "decoder", inputs, outputs, constants)
model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)], ir_version=8)
args.folder.mkdir(parents=True, exist_ok=True)
onnx.save(model, args.folder / "model.onnx")
names = {"past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"}
(args.folder / "genai_config.json").write_text(json.dumps({
    "model": {
        "type": "llama", "context_length": LENGTH, "vocab_size": words, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 2,
        "decoder": {
            "session_options": {"provider_options": []}, "filename": "model.onnx", "head_size": dim, "hidden_size": hidden, "num_attention_heads": heads,
            "num_hidden_layers": layers, "num_key_value_heads": kv_heads,
            "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", **names},
            "outputs": {"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"},
        },
    },
    "search": {"max_length": LENGTH, "past_present_share_buffer": True, "do_sample": False},
}, indent=1) + "\n")
