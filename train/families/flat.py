"""Decoders of the kind flat with their weights inside: graphs over the operators of modelrt/kernel."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from ..graphs import OWN, PANEL, Graph
from .parts import Store, Unsupported

#: What Linear does to its input, numbered as in modelrt/kernel/attention.h.
(NOTHING, RMS_NORM, LAYER_NORM, SILU_GATE, GELU_GATE, GELU_TANH_GATE, GELU, GELU_TANH,
 QUICK_GELU, RELU) = range(10)
GATES = (SILU_GATE, GELU_GATE, GELU_TANH_GATE)


def numbers(value) -> np.ndarray:
    """A tensor of PyTorch as float32."""
    return np.ascontiguousarray(value.detach().float().numpy())


def packed(matrix: np.ndarray) -> np.ndarray:
    """[out, in] in the form FORM_F32 of modelrt/kernel/linear.h, as bytes."""
    missing = -len(matrix) % PANEL
    rows = np.concatenate([matrix, np.zeros((missing, matrix.shape[1]), np.float32)])
    panels = rows.reshape(-1, PANEL, matrix.shape[1]).transpose(0, 2, 1)
    return np.ascontiguousarray(panels, np.float32).view(np.uint8).reshape(-1)


class Flat(Graph):
    """A decoder graph. ``rotary`` is how many numbers of a head turn; 0 is for learned positions."""

    def __init__(self, store: Store, hidden: int, heads: int, kv_heads: int, dim: int, rotary: int, local: bool = False):
        super().__init__()
        self.store = store
        self.hidden, self.heads, self.kv_heads, self.dim = hidden, heads, kv_heads, dim
        self.count = 0
        self.input("inputs_embeds", TensorProto.FLOAT, ["T", hidden])
        for name in ("slot", "at", "upto"):
            self.input(name, TensorProto.INT32, ["T"])
        for name in (("cos", "sin") + (("cos_local", "sin_local") if local else ())) if rotary else ():
            self.input(name, TensorProto.FLOAT, ["T", rotary // 2])
        if not rotary:
            self.input("positions", TensorProto.INT64, ["T"])
        self.input("logits_indices", TensorProto.INT64, ["M"])

    def name(self, word: str) -> str:
        self.count += 1
        return f"{word}.{self.count}"

    def constant(self, name: str, value) -> str:
        if name not in self.constants:
            self.constants[name] = self.store.tensor(name, np.asarray(value))
        return name

    def matrix(self, value: np.ndarray) -> str:
        return self.constant(self.name("matrix"), packed(value))

    def vector(self, value) -> str:
        return "" if value is None else self.constant(self.name("vector"), np.asarray(value, np.float32))

    def linear(self, x: str, weight: np.ndarray, *, norm=None, bias=None, residual: str = "", before: int = NOTHING,
               out: str | None = None, places: tuple[str, ...] = ()) -> str:
        """before(x) W + bias + residual. ``norm`` is (kind, epsilon, scale, shift or None). ``places`` names the matrices, as a GGUF file does,
        of a product that takes a LoRA."""
        scale = shift = None
        epsilon = 1e-5
        if norm:
            before, epsilon, scale, shift = norm
        inputs = [x, self.matrix(weight), self.vector(scale), self.vector(shift), self.vector(bias), residual]
        if places:
            name = "+".join(f"{p}.weight" for p in places)
            inputs += [self.input(f"lora_{side}:{name}", TensorProto.FLOAT, [self.name(f"lora_{side}")]) for side in "ab"]
        while not inputs[-1]:
            inputs.pop()
        rows, columns = weight.shape
        return self.add("Linear", inputs, out or self.name("linear"), domain=OWN, before=before, form=0, k=columns, n=rows,
                        epsilon=float(epsilon))

    def attention(self, qkv: str, layer: int, *, window: int = 0, scale: float | None = None, turns: tuple[str, ...] = ("cos", "sin")) -> str:
        cache = [self.input(f"{kind}{layer}", TensorProto.FLOAT, ["S", self.kv_heads, "P", dim])
                 for kind, dim in (("keys", self.dim), ("values", -(-self.dim // 16) * 16))]
        return self.add("Attention", [qkv, *cache, "slot", "at", "upto", *turns], self.name("mixed"), domain=OWN, heads=self.heads,
                        kv_heads=self.kv_heads, dim=self.dim, window=window, scale=float(scale or self.dim ** -0.5))

    def head(self, x: str, weight: np.ndarray, *, norm=None, bias=None) -> None:
        self.add("Gather", [x, "logits_indices"], "wanted", axis=0)
        self.linear("wanted", weight, norm=norm, bias=bias, out="logits")
        self.output("logits", TensorProto.FLOAT, ["M", len(weight)])

    def normed_heads(self, qkv: str, norms: list[tuple | None]) -> str:
        """Norms of each head of query and key between their product and the attention, in standard nodes. A
        norm is (kind, epsilon, scale [dim], shift or None)."""
        sizes = [self.heads * self.dim, self.kv_heads * self.dim, self.kv_heads * self.dim]
        parts = [self.name("part") for _ in sizes]
        self.nodes_split(qkv, sizes, parts)
        for i, norm in enumerate(norms):
            if norm is None:
                continue
            kind, epsilon, scale, shift = norm
            x = self.add("Reshape", [parts[i], self.constant(f"heads{i}", np.array([0, -1, self.dim], np.int64))], self.name("apart"))
            if kind == LAYER_NORM:
                inputs = [x, self.vector(scale)] + ([self.vector(shift)] if shift is not None else [])
                x = self.add("LayerNormalization", inputs, self.name("normed"), axis=-1, epsilon=float(epsilon))
            else:
                x = self.add("SimplifiedLayerNormalization", [x, self.vector(scale)], self.name("normed"), axis=-1, epsilon=float(epsilon))
            parts[i] = self.add("Reshape", [x, self.constant(f"flat{i}", np.array([0, sizes[i]], np.int64))], self.name("together"))
        return self.add("Concat", parts, self.name("qkv"), axis=-1)

    def nodes_split(self, x: str, sizes: list[int], parts: list[str]) -> None:
        self.add("Split", [x, self.constant("sizes", np.array(sizes, np.int64))], *parts, axis=-1)


def embed_graph(table: np.ndarray, store: Store, scale: float = 1) -> None:
    """ids to embeddings; ``scale`` is for models that multiply them."""
    graph = Graph()
    graph.input("input_ids", TensorProto.INT64, ["T"])
    graph.constants["table"] = store.tensor("table", np.asarray(table, np.float32))
    rows = graph.add("Gather", ["table", "input_ids"], "inputs_embeds" if scale == 1 else "rows")
    if scale != 1:
        graph.add("Mul", [rows, graph.constant("scale", np.float32(scale))], "inputs_embeds")
    graph.output("inputs_embeds", TensorProto.FLOAT, ["T", table.shape[1]])
    graph.save("embed", store.folder / "embed.onnx")


def biases(*modules) -> np.ndarray | None:
    """Those of products that become one."""
    return None if modules[0].bias is None else np.concatenate([numbers(m.bias) for m in modules])


def rotary(config) -> dict:
    """Keys of a manifest's decoder about rotary positions. Of transformers' rope_scaling ``linear`` is taken, and none."""
    scaling = getattr(config, "rope_scaling", None) or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in ("default", "linear", "mrope"):
        raise Unsupported(f"positions of the type {kind} (rope_scaling)")
    return {"rope_theta": float(config.rope_theta)} | ({"rope_factor": float(scaling["factor"])} if kind == "linear" else {})


#: Language models that llama makes graphs of, by transformers' model_type.
LLAMAS = ("llama", "mistral", "qwen2", "qwen2_vl_text", "qwen2_5_vl_text")


def llama_shape(config, longest: int) -> dict:
    """A manifest's decoder of a model that llama takes."""
    if config.model_type not in LLAMAS or config.hidden_act != "silu":
        raise Unsupported(f"a language model of the type {config.model_type} with {config.hidden_act}; {', '.join(LLAMAS)} with silu are supported")
    sliding = getattr(config, "sliding_window", None)
    if sliding and getattr(config, "use_sliding_window", True):
        longest = min(longest, sliding)
    return {"max_length": min(longest, config.max_position_embeddings), "layers": config.num_hidden_layers, "heads": config.num_attention_heads,
            "kv_heads": config.num_key_value_heads, "head_dim": head_dim(config), "hidden": config.hidden_size, "vocab": config.vocab_size} | rotary(config)


def head_dim(config) -> int:
    return getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads


def llama(model, config, store: Store, head) -> None:
    """Decoder and embedding of a model of Llama's shape: Llama, Vicuna, Mistral, Yi, Qwen2. ``model`` has
    embed_tokens, layers and norm; ``head`` is the matrix that makes logits."""
    dim, eps = head_dim(config), config.rms_norm_eps
    graph = Flat(store, config.hidden_size, config.num_attention_heads, config.num_key_value_heads, dim, dim)
    x = "inputs_embeds"

    def norm(module):
        return RMS_NORM, eps, numbers(module.weight), None

    for i, layer in enumerate(model.layers):
        a, m, block = layer.self_attn, layer.mlp, f"blk.{i}."
        parts = (a.q_proj, a.k_proj, a.v_proj)
        qkv = graph.linear(x, np.concatenate([numbers(p.weight) for p in parts]), norm=norm(layer.input_layernorm), bias=biases(*parts),
                           places=(block + "attn_q", block + "attn_k", block + "attn_v"))
        x = graph.linear(graph.attention(qkv, i), numbers(a.o_proj.weight), bias=biases(a.o_proj), residual=x, places=(block + "attn_output",))
        gates = graph.linear(x, np.concatenate([numbers(m.gate_proj.weight), numbers(m.up_proj.weight)]), norm=norm(layer.post_attention_layernorm),
                             bias=biases(m.gate_proj, m.up_proj), places=(block + "ffn_gate", block + "ffn_up"))
        x = graph.linear(gates, numbers(m.down_proj.weight), bias=biases(m.down_proj), residual=x, before=SILU_GATE, places=(block + "ffn_down",))
    graph.head(x, numbers(head), norm=norm(model.norm))
    graph.save("decoder", store.folder / "decoder.onnx")
    embed_graph(numbers(model.embed_tokens.weight), store)
