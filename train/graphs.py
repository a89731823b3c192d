"""The ONNX graphs of a bundle. Graphs of the language model hold no weights, only references into
``weights.bin``; ``Layout`` says where each tensor goes and what makes it."""

from __future__ import annotations

import gzip
import io
import json
import warnings
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

from .base import PANEL, Base
from .settings import SIDE

OPSET, IR, CONTRIB, OWN = 17, 8, "com.microsoft", "chatxray"
#: Forms of packed matrices in modelrt/kernel/linear.h: number, and bits of a value with its share of the scales.
FORMS = {"pack_f32": 0, "pack_q4_1": 1, "pack_q8_0": 2}
BITS = {"pack_f32": 32, "pack_q4_1": 5, "pack_q8_0": 8.5}
#: What Linear does to its input, numbered as in modelrt/kernel/attention.h.
NOTHING, RMS_NORM, SILU_GATE = 0, 1, 3
#: Precisions of a form of standard operators: ONNX's element, and bytes.
PRECISIONS = {"float32": (TensorProto.FLOAT, 4), "float16": (TensorProto.FLOAT16, 2), "bfloat16": (TensorProto.BFLOAT16, 2)}
PAGE = 4096
WEIGHTS = "weights.bin"


class Layout:
    """Places tensors of the base model in ``weights.bin``, each at a page boundary. ``precision`` is of those that are
    not packed."""

    def __init__(self, base: Base, precision: str = "float32"):
        self.base, self.precision, self.entries, self.end = base, precision, {}, 0

    def place(self, op: str, sources: tuple[str, ...]) -> dict:
        """Matrices of ``deq_t`` and of ``pack_...`` stand side by side: [in, out of the first + out of the second ...]."""
        key = (op, sources)
        if key not in self.entries:
            shape, kind = list(self.base.shape(sources[0])), self.precision
            if op == "deq_t":
                shape = [shape[1], self.columns(sources)]
            if op.startswith("pack_"):
                panels = -(-self.columns(sources) // PANEL)
                shape, kind = [int(panels * shape[1] * PANEL * BITS[op]) // 8], "uint8"
            size = int(np.prod(shape)) * (1 if kind == "uint8" else PRECISIONS[kind][1])
            offset = -(-self.end // PAGE) * PAGE
            self.entries[key] = {"op": op, "src": list(sources), "offset": offset, "bytes": size,
                                 "dtype": kind, "shape": shape}
            self.end = offset + size
        return self.entries[key]

    def columns(self, sources: tuple[str, ...]) -> int:
        return sum(self.base.shape(s)[0] for s in sources)

    def save(self, path: Path) -> None:
        raw = io.BytesIO()
        with gzip.GzipFile(fileobj=raw, mode="wb", mtime=0, filename="") as file:
            file.write(json.dumps(list(self.entries.values()), separators=(",", ":")).encode())
        path.write_bytes(raw.getvalue())


class Graph:
    """Collects the nodes of one graph."""

    def __init__(self, layout: Layout | None = None):
        self.layout, self.nodes, self.constants = layout, [], {}
        self.inputs, self.outputs = [], []

    def add(self, op: str, inputs: list[str], *outputs: str, **attributes) -> str:
        self.nodes.append(helper.make_node(op, inputs, list(outputs), **attributes))
        return outputs[0]

    def constant(self, name: str, value) -> str:
        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(value), name))
        return name

    def rounded(self, name: str, value: np.ndarray, kind: int) -> str:
        """A constant of an element type, which may be one that NumPy lacks."""
        self.constants.setdefault(name, helper.make_tensor(name, kind, value.shape, value.astype(np.float32).reshape(-1)))
        return name

    def weight(self, op: str, *sources: str) -> str:
        """An initializer that lives in weights.bin."""
        name = f"{op}:{'+'.join(sources)}"
        if name not in self.constants:
            entry = self.layout.place(op, sources)
            kind = TensorProto.UINT8 if entry["dtype"] == "uint8" else PRECISIONS[entry["dtype"]][0]
            tensor = TensorProto(name=name, data_type=kind, dims=entry["shape"],
                                 data_location=TensorProto.EXTERNAL)
            for key, value in (("location", WEIGHTS), ("offset", entry["offset"]), ("length", entry["bytes"])):
                tensor.external_data.add(key=key, value=str(value))
            self.constants[name] = tensor
        return name

    def bias(self, *sources: str) -> str:
        """An initializer that is added to a product; a GGUF file of Llama's shape has none."""
        return ""

    def input(self, name: str, kind: int, shape: list) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def output(self, name: str, kind: int, shape: list) -> None:
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def save(self, name: str, path: Path) -> None:
        graph = helper.make_graph(self.nodes, name, self.inputs, self.outputs, list(self.constants.values()))
        model = helper.make_model(graph, producer_name="chatxray-train", ir_version=IR, opset_imports=[
            helper.make_opsetid("", OPSET), helper.make_opsetid(CONTRIB, 1), helper.make_opsetid(OWN, 1)])
        path.write_bytes(model.SerializeToString(deterministic=True))


def embed_graph(layout: Layout, path: Path, graph: Graph | None = None) -> None:
    graph, halved = graph or Graph(layout), layout.precision != "float32"
    graph.input("input_ids", TensorProto.INT64, ["B", "S"])
    graph.add("Gather", [graph.weight("q8deq", "token_embd.weight"), "input_ids"], "rows" if halved else "inputs_embeds")
    if halved:
        graph.add("Cast", ["rows"], "inputs_embeds", to=TensorProto.FLOAT)
    graph.output("inputs_embeds", TensorProto.FLOAT, ["B", "S", layout.base.hidden])
    graph.save("embed", path)


def decoder_graph(layout: Layout, path: Path, longest: int, graph: Graph | None = None) -> None:
    """Decoder with a key-value cache that ONNX Runtime may grow in place, in the layout's precision;
    embeddings and logits are float32. Hidden states are gathered at ``logits_indices`` before the
    head, so that a prefill pays for few logits. Query, key and value are one product, gate and up
    another: one token costs little besides reading weights, and each product more is two threads
    that wait for each other. ``graph`` may say otherwise where weights are, and have biases."""
    base, graph = layout.base, graph or Graph(layout)
    real, hidden = TensorProto.FLOAT, base.hidden
    inner, halved = PRECISIONS[layout.precision][0], layout.precision != "float32"
    x = graph.input("inputs_embeds", real, ["B", "S", hidden])
    graph.input("seqlens_k", TensorProto.INT32, ["B"])
    graph.input("total_seq", TensorProto.INT32, [1])
    graph.input("logits_indices", TensorProto.INT64, ["M"])
    graph.output("logits", real, ["B", "M", base.vocab])
    if halved:
        x = graph.add("Cast", [x], "x", to=inner)

    exponent = np.arange(0, base.head_dim, 2) / base.head_dim
    angles = np.arange(longest)[:, None] / getattr(base, "rope_factor", 1) * base.theta ** -exponent[None]
    cos, sin = (graph.rounded("cos", np.cos(angles), inner), graph.rounded("sin", np.sin(angles), inner))

    def norm(weight: str, x: str, branch: str | None, out: str) -> tuple[str, str]:
        """(normed, residual stream); the branch is added to the stream in the same node."""
        weight = graph.weight("f32", weight)
        if branch is None:
            return graph.add("SimplifiedLayerNormalization", [x, weight], out, axis=-1, epsilon=base.epsilon), x
        graph.add("SkipSimplifiedLayerNormalization", [x, branch, weight], out, "", "", out + ".sum",
                  domain=CONTRIB, epsilon=base.epsilon)
        return out, out + ".sum"

    branch = None
    for layer in range(base.layers):
        def linear(source: str, *names: str) -> str:
            weight = graph.weight("deq_t", *(f"blk.{layer}.{name}.weight" for name in names))
            product, bias = f"{layer}.{'+'.join(names)}", graph.bias(*(f"blk.{layer}.{name}.bias" for name in names))
            if bias:
                return graph.add("Add", [graph.add("MatMul", [source, weight], product), bias], product + ".sum")
            return graph.add("MatMul", [source, weight], product)

        normed, x = norm(f"blk.{layer}.attn_norm.weight", x, branch, f"{layer}.n1")
        qkv = linear(normed, "attn_q", "attn_k", "attn_v")
        for kind in "kv":
            graph.input(f"past_{kind}{layer}", inner, ["B", base.kv_heads, "P", base.head_dim])
            graph.output(f"present_{kind}{layer}", inner, ["B", base.kv_heads, "T", base.head_dim])
        graph.add("GroupQueryAttention", [qkv, "", "", f"past_k{layer}", f"past_v{layer}", "seqlens_k",
                                          "total_seq", cos, sin],
                  f"{layer}.mixed", f"present_k{layer}", f"present_v{layer}", domain=CONTRIB,
                  num_heads=base.heads, kv_num_heads=base.kv_heads, do_rotary=1, rotary_interleaved=0)
        branch = linear(f"{layer}.mixed", "attn_output")
        normed, x = norm(f"blk.{layer}.ffn_norm.weight", x, branch, f"{layer}.n2")
        gate, up = f"{layer}.gate", f"{layer}.up"
        graph.add("Split", [linear(normed, "ffn_gate", "ffn_up")], gate, up, axis=-1)
        graph.add("Sigmoid", [gate], f"{layer}.sigmoid")
        graph.add("Mul", [gate, f"{layer}.sigmoid"], f"{layer}.silu")
        branch = linear(graph.add("Mul", [f"{layer}.silu", up], f"{layer}.inner"), "ffn_down")

    graph.add("Add", [x, branch], "last")
    graph.add("Gather", ["last", "logits_indices"], "wanted", axis=1)
    graph.add("SimplifiedLayerNormalization", ["wanted", graph.weight("f32", "output_norm.weight")],
              "final", axis=-1, epsilon=base.epsilon)
    graph.add("Shape", ["wanted"], "rows", start=0, end=2)
    graph.add("Concat", ["rows", graph.constant("vocab", np.array([base.vocab], np.int64))], "logits_shape", axis=0)
    graph.add("Reshape", ["final", graph.constant("flat", np.array([-1, hidden], np.int64))], "final_flat")
    flat = graph.add("Gemm", ["final_flat", graph.weight("q8deq", getattr(base, "head", "token_embd.weight"))], "logits_flat", transB=1)
    if halved:
        flat = graph.add("Cast", [flat], "logits_real", to=real)
    graph.add("Reshape", [flat, "logits_shape"], "logits")
    graph.save("decoder", path)


#: The operations that the matrices of a form's layers and its embedding, which is the head too, come from.
FLAT = {"q4": ("pack_q4_1", "pack_q8_0"), "fp32": ("pack_f32", "pack_f32")}


def flat_graphs(layout: Layout, form: str, embed: Path, decoder: Path) -> None:
    """The decoder over the operators of modelrt/kernel, for the CPU: tokens of many texts in one row
    [T, hidden], each with its slot of the caches, its place there and how far it sees. The caches
    are written in place. A LoRA stands beside the matrices of the layers, packed, as inputs that may be empty.
    Work on a product's input (norm, gate) is done in the product's node."""
    base, (matrices, table) = layout.base, FLAT[form]
    real, whole = TensorProto.FLOAT, TensorProto.INT32

    def matrix(graph: Graph, op: str, *sources: str) -> tuple[str, dict]:
        return graph.weight(op, *sources), {"form": FORMS[op], "k": base.shape(sources[0])[1],
                                            "n": layout.columns(sources), "epsilon": base.epsilon}

    graph = Graph(layout)
    graph.input("input_ids", TensorProto.INT64, ["T"])
    weight, size = matrix(graph, table, "token_embd.weight")
    graph.add("Embed", ["input_ids", weight], "inputs_embeds", domain=OWN, before=NOTHING, **size)
    graph.output("inputs_embeds", real, ["T", base.hidden])
    graph.save("embed", embed)

    graph = Graph(layout)
    x = graph.input("inputs_embeds", real, ["T", base.hidden])
    for name in ("slot", "at", "upto"):
        graph.input(name, whole, ["T"])
    for name in ("cos", "sin"):
        graph.input(name, real, ["T", base.head_dim // 2])
    graph.input("logits_indices", TensorProto.INT64, ["M"])

    def linear(x: str, op: str, out: str, *names: str, norm: str = "", residual: str = "", before: int = NOTHING) -> str:
        sources = tuple(f"{name}.weight" for name in names)
        weight, size = matrix(graph, op, *sources)
        inputs = [x, weight, graph.weight("f32", norm) if norm else "", "", "", residual, "", ""]
        if all("." in n for n in names):
            inputs[6:] = [graph.input(f"lora_{side}:{'+'.join(sources)}", real, [f"{out}.{side}"]) for side in "ab"]
        while not inputs[-1]:
            inputs.pop()
        return graph.add("Linear", inputs, out, domain=OWN, before=RMS_NORM if norm else before, **size)

    for layer in range(base.layers):
        block = f"blk.{layer}."
        qkv = linear(x, matrices, f"{layer}.qkv", *(f"{block}attn_{c}" for c in "qkv"), norm=f"{block}attn_norm.weight")
        cache = [graph.input(f"{kind}{layer}", real, ["S", base.kv_heads, "P", dim])
                 for kind, dim in (("keys", base.head_dim), ("values", -(-base.head_dim // 16) * 16))]
        mixed = graph.add("Attention", [qkv, *cache, "slot", "at", "upto", "cos", "sin"], f"{layer}.mixed", domain=OWN,
                          heads=base.heads, kv_heads=base.kv_heads, dim=base.head_dim, window=0, scale=base.head_dim ** -0.5)
        x = linear(mixed, matrices, f"{layer}.x1", block + "attn_output", residual=x)
        gates = linear(x, matrices, f"{layer}.gates", block + "ffn_gate", block + "ffn_up", norm=f"{block}ffn_norm.weight")
        x = linear(gates, matrices, f"{layer}.x2", block + "ffn_down", residual=x, before=SILU_GATE)
    graph.add("Gather", [x, "logits_indices"], "wanted", axis=0)
    linear("wanted", table, "logits", "token_embd", norm="output_norm.weight")
    graph.output("logits", real, ["M", base.vocab])
    graph.save("decoder", decoder)


def halve(model: onnx.ModelProto) -> onnx.ModelProto:
    """Float32 initializers become float16 with a Cast behind them; ONNX Runtime folds the casts."""
    casts, kept = [], []
    for tensor in model.graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            kept.append(tensor)
            continue
        value = numpy_helper.to_array(tensor)
        if not np.all(np.abs(value) < 65504):
            raise ValueError(f"{tensor.name}: does not fit float16")
        kept.append(numpy_helper.from_array(value.astype(np.float16), tensor.name + "_half"))
        casts.append(helper.make_node("Cast", [tensor.name + "_half"], [tensor.name], to=TensorProto.FLOAT))
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    nodes = casts + list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    model.ir_version = IR
    for text in (model, model.graph):
        text.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        del node.metadata_props[:]
    return model


def traced_graph(module: torch.nn.Module, example: torch.Tensor, inputs: list[str], outputs: list[str],
                 path: Path) -> None:
    """Exports a PyTorch module with a free batch axis and halves its weights."""
    raw = io.BytesIO()
    module.eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        torch.onnx.export(module, (example,), raw, input_names=inputs, output_names=outputs,
                          opset_version=OPSET, dynamo=False, do_constant_folding=True,
                          dynamic_axes={n: {0: "B"} for n in inputs + outputs})
    model = halve(onnx.load_from_string(raw.getvalue()))
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


class VisionForExport(torch.nn.Module):
    """pixel_values to image_features and findings_logits (closed list only)."""

    def __init__(self, encoder, findings: int):
        super().__init__()
        self.encoder, self.findings = encoder, findings

    def forward(self, pixel_values: torch.Tensor):
        features = self.encoder.features(pixel_values)
        pooled = torch.cat([features[:, 0], features[:, 1:].mean(1)], 1)
        head = self.encoder.head
        return features, torch.nn.functional.linear(pooled, head.weight[:self.findings], head.bias[:self.findings])


def vision_graph(encoder, findings: int, path: Path) -> None:
    encoder = encoder.to(memory_format=torch.contiguous_format)
    traced_graph(VisionForExport(encoder, findings), torch.zeros(2, 1, SIDE, SIDE), ["pixel_values"],
                 ["image_features", "findings_logits"], path)
