"""Forms of the kind gqa, which GPUs run: standard operators and GroupQueryAttention, in a precision, beside the flat form of the same model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
from onnx import TensorProto

from ..export import rounded
from ..graphs import PRECISIONS, Graph, decoder_graph, embed_graph
from .parts import Parts, Store, Unsupported

#: Names of forms as the default bundle has them, and their precisions.
FORMS = {"standard": "float32", "half": "float16", "brain": "bfloat16"}


class Given(Graph):
    """A graph over tensors of PyTorch, called as a GGUF file calls them."""

    def __init__(self, store: Store, layout: SimpleNamespace, tensors: dict):
        super().__init__(layout)
        self.store, self.tensors = store, tensors

    def weight(self, op: str, *sources: str) -> str:
        name = f"{op}:{'+'.join(sources)}"
        if name not in self.constants:
            value = np.concatenate([self.tensors[s].detach().float().numpy() for s in sources])
            value = np.ascontiguousarray(value.T if op == "deq_t" else value)
            tensor = TensorProto(name=name, data_type=PRECISIONS[self.layout.precision][0], dims=value.shape)
            self.store.put(tensor, rounded(value, self.layout.precision), self.store.weights)
            self.constants[name] = tensor
        return name

    def bias(self, *sources: str) -> str:
        return self.weight("bias", *sources) if sources[0] in self.tensors else ""


def llama(model, head) -> dict:
    """The tensors of a model of Llama's shape."""
    found = {"token_embd.weight": model.embed_tokens.weight, "output.weight": head, "output_norm.weight": model.norm.weight}
    for i, layer in enumerate(model.layers):
        a, m = layer.self_attn, layer.mlp
        for name, module in (("attn_norm", layer.input_layernorm), ("attn_q", a.q_proj), ("attn_k", a.k_proj), ("attn_v", a.v_proj), ("attn_output", a.o_proj),
                             ("ffn_norm", layer.post_attention_layernorm), ("ffn_gate", m.gate_proj), ("ffn_up", m.up_proj), ("ffn_down", m.down_proj)):
            found[f"blk.{i}.{name}.weight"] = module.weight
            if getattr(module, "bias", None) is not None:
                found[f"blk.{i}.{name}.bias"] = module.bias
    return found


def export(name: str, parts: Parts, store: Store) -> dict:
    """Writes the graphs of a form; returns its entry in the manifest's base.forms."""
    if parts.tensors is None or parts.decoder.get("positions", "rope-1d") != "rope-1d" or parts.decoder.get("mask", "causal") != "causal":
        raise Unsupported(f"the form {name} needs plain positions and a causal mask; models of this type have none of that kind")
    d, (tensors, epsilon), precision = parts.decoder, parts.tensors, FORMS[name]
    base = SimpleNamespace(layers=d["layers"], heads=d["heads"], kv_heads=d["kv_heads"], head_dim=d["head_dim"], hidden=d["hidden"], vocab=d["vocab"],
                           theta=d["rope_theta"], rope_factor=d.get("rope_factor", 1), epsilon=epsilon, head="output.weight")
    layout = SimpleNamespace(base=base, precision=precision)
    embed, decoder = f"embed.{name}.onnx", f"decoder.{name}.onnx"
    embed_graph(layout, store.folder / embed, Given(store, layout, tensors))
    decoder_graph(layout, store.folder / decoder, d["max_length"], Given(store, layout, tensors))
    return {"name": name, "kind": "gqa", "precision": precision, "embed": embed, "decoder": decoder}
