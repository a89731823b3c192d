"""SmolLM2-135M-Instruct out of its GGUF file: values, tokenizer, and the operations by which the
Go converter and this package both turn a quantised tensor into an ONNX initializer."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from gguf import GGUFReader

from .settings import Places
from .wheels import wheel

PROJECTIONS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


PANEL = 32


def _panels(rows: np.ndarray) -> np.ndarray:
    """[N, ...] to [N / PANEL, PANEL, ...], filled up with zeros."""
    missing = -len(rows) % PANEL
    rows = np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)]) if missing else rows
    return rows.reshape(-1, PANEL, *rows.shape[1:])


def gguf_file(places: Places) -> Path:
    """The GGUF file, unpacked from the wheel into the cache."""
    with zipfile.ZipFile(wheel(places, "language")) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".gguf"))
        target = places.cached(Path(name).name)
        if not target.exists():
            partial = target.with_suffix(".part")
            partial.write_bytes(archive.read(name))
            partial.rename(target)
    return target


class Base:
    """The tensors of the base model. Rows of attn_q and attn_k are given in the order of
    half-split rotary embedding (GGUF interleaves the two halves of each head)."""

    def __init__(self, path: Path):
        reader, self.path = GGUFReader(path), path

        def field(name: str):
            return reader.fields[name].contents()

        self._tensors = {t.name: t for t in reader.tensors}
        self.layers, self.hidden = field("llama.block_count"), field("llama.embedding_length")
        self.inner, self.heads = field("llama.feed_forward_length"), field("llama.attention.head_count")
        self.kv_heads, self.vocab = field("llama.attention.head_count_kv"), field("llama.vocab_size")
        self.head_dim = self.hidden // self.heads
        self.theta = field("llama.rope.freq_base")
        self.epsilon = field("llama.attention.layer_norm_rms_epsilon")
        self._field = field

    def tokenizer(self, name: str) -> list:
        return self._field("tokenizer.ggml." + name)

    def shape(self, name: str) -> tuple[int, ...]:
        """Row-major: [out, in] for a matrix."""
        return tuple(int(n) for n in self._tensors[name].shape[::-1])

    def _blocks(self, name: str, kind: str, size: int) -> np.ndarray:
        tensor = self._tensors[name]
        if tensor.tensor_type.name != kind:
            raise ValueError(f"{name}: {tensor.tensor_type.name}, expected {kind}")
        rows, columns = self.shape(name)
        return np.ascontiguousarray(tensor.data).view(np.uint8).reshape(rows, columns // 32, size)

    @staticmethod
    def _half(raw: np.ndarray) -> np.ndarray:
        return np.ascontiguousarray(raw).view(np.float16).astype(np.float32)

    def f32(self, name: str) -> np.ndarray:
        return np.array(self._tensors[name].data, np.float32)

    def matrix(self, name: str) -> np.ndarray:
        """A Q4_1 matrix as float32 [out, in]."""
        blocks = self._blocks(name, "Q4_1", 20)
        scale, least = self._half(blocks[..., 0:2]), self._half(blocks[..., 2:4])
        packed = blocks[..., 4:]
        nibbles = np.concatenate([packed & 15, packed >> 4], -1).astype(np.float32)
        rows, columns = self.shape(name)
        return self._in_order(name, (scale * nibbles + least).reshape(rows, columns))

    def embedding(self) -> np.ndarray:
        """The Q8_0 token embedding, tied with the head, as float32 [vocab, hidden]."""
        blocks = self._blocks("token_embd.weight", "Q8_0", 34)
        values = self._half(blocks[..., 0:2]) * np.ascontiguousarray(blocks[..., 2:]).view(np.int8)
        return values.reshape(self.shape("token_embd.weight")).astype(np.float32)

    def packed(self, op: str, sources: tuple[str, ...]) -> np.ndarray:
        """Matrices side by side in a form of modelrt/kernel/linear.h, as bytes: panels of PANEL
        columns, which are rows [out] of the matrices; a last panel is filled up with zeros."""
        if op == "pack_f32":
            rows = np.concatenate([self.matrix(s) if s.startswith("blk.") else self.embedding() for s in sources])
            panels = _panels(rows)
            return np.ascontiguousarray(panels.transpose(0, 2, 1)).view(np.uint8).reshape(-1)
        kind, size = {"pack_q4_1": ("Q4_1", 20), "pack_q8_0": ("Q8_0", 34)}[op]
        blocks = np.concatenate([self._in_order(s, self._blocks(s, kind, size)) for s in sources])
        panels = _panels(blocks)                                   # [P, PANEL, K / 32, size]
        count, _, deep, _ = panels.shape

        def by_block(part: np.ndarray) -> np.ndarray:              # [P, K / 32, PANEL, bytes]
            return np.ascontiguousarray(part.transpose(0, 2, 1, 3))

        scales = [by_block(panels[..., at:at + 2]).reshape(count, deep, -1) for at in range(0, size & 6, 2)]
        values = by_block(panels[..., size - (16 if op == "pack_q4_1" else 32):])
        if op == "pack_q8_0":
            values = values.transpose(0, 1, 3, 2)                  # [P, K / 32, 32, PANEL]
        else:
            nibbles = np.concatenate([values & 15, values >> 4], -1).astype(np.uint32)
            words = nibbles.reshape(count, deep, PANEL, 4, 8) << (4 * np.arange(8, dtype=np.uint32))
            values = np.ascontiguousarray(words.sum(-1, dtype=np.uint32).transpose(0, 1, 3, 2)).view(np.uint8)
        return np.concatenate([*scales, values.reshape(count, deep, -1)], -1).reshape(-1)

    def _in_order(self, name: str, rows: np.ndarray) -> np.ndarray:
        """Rows of query and key in the order of half-split rotary embedding."""
        if ".attn_q." in name or ".attn_k." in name:
            shape = rows.shape
            rows = rows.reshape(-1, self.head_dim // 2, 2, *shape[1:]).swapaxes(1, 2).reshape(shape)
        return rows

    def initializer(self, op: str, source: str) -> np.ndarray:
        """What ``op`` of layout.json.gz makes of the tensor ``source``."""
        if op == "f32":
            return self.f32(source)
        if op == "q8deq":
            return self.embedding()
        if op == "deq_t":
            return np.ascontiguousarray(self.matrix(source).T)
        raise ValueError(f"unknown operation {op}")


def write_tokenizer(base: Base, path: Path) -> None:
    """tokenizer.json: single digits first, then GPT-2's byte-level pattern (llama.cpp's "smollm")."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens, merges = base.tokenizer("tokens"), [tuple(m.split(" ")) for m in base.tokenizer("merges")]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Digits(individual_digits=True),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    tokenizer.decoder = decoders.ByteLevel()
    control = [t for t, kind in zip(tokens, base.tokenizer("token_type")) if kind == 3]
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in control])
    tokenizer.save(str(path))
