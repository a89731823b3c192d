"""``python -m train.shape OUT --shape 7b``: a decoder of that shape without weights, for measuring. It writes the graphs, the layout of
weights.bin and shape.json; bench/cuda fills weights.bin with random numbers."""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

from .graphs import Layout, decoder_graph, embed_graph


@dataclass
class Shape:
    """What graphs.py asks of a base model."""

    layers: int
    hidden: int
    inner: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    theta: float = 10000.0
    epsilon: float = 1e-5

    def shape(self, name: str) -> tuple[int, ...]:
        """Row-major: [out, in] for a matrix."""
        wide, narrow = self.heads * self.head_dim, self.kv_heads * self.head_dim
        if "norm" in name:
            return (self.hidden,)
        return {"token_embd": (self.vocab, self.hidden), "attn_q": (wide, self.hidden), "attn_k": (narrow, self.hidden), "attn_v": (narrow, self.hidden),
                "attn_output": (self.hidden, wide), "ffn_gate": (self.inner, self.hidden), "ffn_up": (self.inner, self.hidden),
                "ffn_down": (self.hidden, self.inner)}[name.split(".")[-2]]


#: Mistral 7B, which LLaVA-Med 1.5 is made of (the head is tied here), and one that any machine runs.
SHAPES = {"7b": Shape(32, 4096, 14336, 32, 8, 128, 32000), "tiny": Shape(4, 256, 512, 4, 2, 64, 2000)}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m train.shape", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--shape", choices=sorted(SHAPES), default="7b")
    parser.add_argument("--precision", choices=("float32", "float16", "bfloat16"), default="bfloat16")
    parser.add_argument("--longest", type=int, default=2048)
    write(**vars(parser.parse_args()))


def write(out: Path, shape: str, precision: str, longest: int) -> None:
    out.mkdir(parents=True, exist_ok=True)
    model = SHAPES[shape]
    layout = Layout(model, precision)
    embed_graph(layout, out / "embed.onnx")
    decoder_graph(layout, out / "decoder.onnx", longest)
    layout.save(out / "layout.json.gz")
    decoder = {"layers": model.layers, "heads": model.heads, "kv_heads": model.kv_heads, "head_dim": model.head_dim, "hidden": model.hidden,
               "vocab": model.vocab, "max_length": longest, "rope_theta": model.theta}
    form = {"name": shape, "kind": "gqa", "precision": precision, "embed": "embed.onnx", "decoder": "decoder.onnx", "layout": "layout.json.gz",
            "weights_bytes": layout.end}
    (out / "shape.json").write_text(json.dumps({"name": shape, "decoder": decoder, "form": form}, indent=1) + "\n")
    print(f"{out}: {shape}, {precision}, weights.bin will have {layout.end / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
