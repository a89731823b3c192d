"""The language model in PyTorch: frozen base weights, LoRA on the attention projections."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .base import Base

RANK, ALPHA = 8, 16
ADAPTED = ("attn_q", "attn_k", "attn_v", "attn_output")

Cache = list[tuple[Tensor, Tensor]]


class Projection(nn.Module):
    """y = x W^T, plus alpha / rank * (x A^T) B^T where LoRA is asked for."""

    def __init__(self, weight: Tensor, adapted: bool):
        super().__init__()
        self.register_buffer("weight", weight, persistent=False)
        if adapted:
            rows, columns = weight.shape
            self.lora_a = nn.Parameter(torch.randn(RANK, columns) / columns ** 0.5)
            self.lora_b = nn.Parameter(torch.zeros(rows, RANK))
        self.adapted = adapted

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight)
        if self.adapted:
            y = y + F.linear(F.linear(x, self.lora_a), self.lora_b) * (ALPHA / RANK)
        return y


class Block(nn.Module):
    def __init__(self, base: Base, index: int):
        super().__init__()
        prefix = f"blk.{index}."
        self.heads, self.kv_heads, self.head_dim = base.heads, base.kv_heads, base.head_dim
        self.epsilon = base.epsilon
        for name in ("attn_norm", "ffn_norm"):
            self.register_buffer(name, torch.from_numpy(base.f32(f"{prefix}{name}.weight")), persistent=False)
        for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
            weight = torch.from_numpy(base.matrix(f"{prefix}{name}.weight"))
            setattr(self, name, Projection(weight, name in ADAPTED))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, past: tuple[Tensor, Tensor] | None):
        batch, length, hidden = x.shape
        n = F.rms_norm(x, (hidden,), self.attn_norm, self.epsilon)

        def split(y: Tensor, heads: int) -> Tensor:
            return y.view(batch, length, heads, self.head_dim).transpose(1, 2)

        q = rotate(split(self.attn_q(n), self.heads), cos, sin)
        k = rotate(split(self.attn_k(n), self.kv_heads), cos, sin)
        v = split(self.attn_v(n), self.kv_heads)
        if past is not None:
            k, v = torch.cat([past[0], k], 2), torch.cat([past[1], v], 2)
        mixed = F.scaled_dot_product_attention(q, k.repeat_interleave(self.heads // self.kv_heads, 1),
                                               v.repeat_interleave(self.heads // self.kv_heads, 1),
                                               is_causal=past is None)
        x = x + self.attn_output(mixed.transpose(1, 2).reshape(batch, length, hidden))
        n = F.rms_norm(x, (hidden,), self.ffn_norm, self.epsilon)
        return x + self.ffn_down(F.silu(self.ffn_gate(n)) * self.ffn_up(n)), (k, v)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    low, high = x.chunk(2, -1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], -1)


class Language(nn.Module):
    """Embeddings in, hidden states or logits out. Only LoRA parameters are trainable."""

    def __init__(self, base: Base):
        super().__init__()
        self.register_buffer("embedding", torch.from_numpy(base.embedding()), persistent=False)
        self.register_buffer("output_norm", torch.from_numpy(base.f32("output_norm.weight")), persistent=False)
        self.blocks = nn.ModuleList(Block(base, i) for i in range(base.layers))
        self.hidden, self.epsilon = base.hidden, base.epsilon
        half = torch.arange(0, base.head_dim, 2).double() / base.head_dim
        self.register_buffer("frequency", base.theta ** -half, persistent=False)

    def embed(self, ids: Tensor) -> Tensor:
        return F.embedding(ids, self.embedding)

    def forward(self, x: Tensor, cache: Cache | None = None) -> tuple[Tensor, Cache]:
        start = cache[0][0].shape[2] if cache else 0
        angle = torch.arange(start, start + x.shape[1]).double()[:, None] * self.frequency
        cos, sin = angle.cos().float(), angle.sin().float()
        grown: Cache = []
        for i, block in enumerate(self.blocks):
            x, pair = block(x, cos, sin, cache[i] if cache else None)
            grown.append(pair)
        return F.rms_norm(x, (self.hidden,), self.output_norm, self.epsilon), grown

    def logits(self, hidden: Tensor) -> Tensor:
        return F.linear(hidden, self.embedding)

    def lora(self) -> dict[str, Tensor]:
        """blk.L.NAME.lora_a [r, in] and lora_b [out, r] with the scale already in lora_b."""
        out = {}
        for i, block in enumerate(self.blocks):
            for name in ADAPTED:
                projection = getattr(block, name)
                out[f"blk.{i}.{name}.lora_a"] = projection.lora_a.detach()
                out[f"blk.{i}.{name}.lora_b"] = projection.lora_b.detach() * (ALPHA / RANK)
        return out
