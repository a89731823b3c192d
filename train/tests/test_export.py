"""Exported graphs give what PyTorch gives, on random weights of a tiny language model."""

import gzip
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from train.encoder import Encoder  # noqa: E402
from train.export import merged, seal, write_weights  # noqa: E402
from train.graphs import PAGE, Layout, decoder_graph, embed_graph, traced_graph, vision_graph  # noqa: E402
from train.language import Language  # noqa: E402
from train.reader import IMAGE_TOKENS, Adapter  # noqa: E402
from train.reference import session  # noqa: E402
from train.settings import FEATURE_TOKENS, FINDINGS, SIDE, WIDTH  # noqa: E402


class TinyBase:
    """Random weights behind the interface of base.Base."""

    layers, hidden, inner, heads, kv_heads, head_dim, vocab = 2, 64, 96, 4, 2, 16, 320
    theta, epsilon = 10000.0, 1e-5

    def __init__(self):
        rng = np.random.default_rng(0)
        rows = {"attn_q": 64, "attn_k": 32, "attn_v": 32, "attn_output": 64, "ffn_gate": 96, "ffn_up": 96, "ffn_down": 64}
        self.values = {"token_embd.weight": rng.standard_normal((320, 64)), "output_norm.weight": rng.uniform(0.5, 1.5, 64)}
        for i in range(self.layers):
            for name in ("attn_norm", "ffn_norm"):
                self.values[f"blk.{i}.{name}.weight"] = rng.uniform(0.5, 1.5, 64)
            for name, n in rows.items():
                columns = 96 if name == "ffn_down" else 64
                self.values[f"blk.{i}.{name}.weight"] = rng.standard_normal((n, columns)) / columns ** 0.5
        self.values = {k: v.astype(np.float32) for k, v in self.values.items()}

    def shape(self, name):
        return self.values[name].shape

    def f32(self, name):
        return self.values[name]

    matrix = f32

    def embedding(self):
        return self.values["token_embd.weight"]

    def initializer(self, op, source):
        value = self.values[source]
        return np.ascontiguousarray(value.T) if op == "deq_t" else value


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    base = TinyBase()
    language = Language(base).eval()
    for name, parameter in language.named_parameters():
        with torch.no_grad():
            if name.endswith("lora_b"):
                parameter.normal_(std=0.05)
            parameter.copy_(parameter.half().float())
    lora = {k: v.numpy().astype(np.float16) for k, v in language.lora().items()}
    layout = Layout(base)
    embed_graph(layout, folder / "embed.onnx")
    decoder_graph(layout, folder / "decoder.onnx", 64)
    layout.save(folder / "layout.json.gz")
    digest = write_weights(base, layout, lora, folder / "weights.bin")
    return folder, base, language, layout, lora, digest


def feeds(base, x, past, indices, targets):
    rows = len(x)
    seen = past[0].shape[2] if past else 0
    out = {"inputs_embeds": x, "seqlens_k": np.full(rows, seen + x.shape[1] - 1, np.int32),
           "total_seq": np.array([seen + x.shape[1]], np.int32),
           "logits_indices": np.array(indices, np.int64), "target_ids": np.array(targets, np.int64)}
    for i in range(base.layers):
        for j, kind in enumerate("kv"):
            out[f"past_{kind}{i}"] = past[2 * i + j] if past else np.zeros((rows, base.kv_heads, 0, base.head_dim), np.float32)
    return out


def test_decoder_equals_pytorch_with_lora_and_cache(tiny):
    folder, base, language, *_ = tiny
    ids = np.random.default_rng(1).integers(0, base.vocab, (2, 12))
    embedded = session(folder / "embed.onnx").run(None, {"input_ids": ids})[0]
    with torch.no_grad():
        x = language.embed(torch.from_numpy(ids))
        wanted = language.logits(language(x)[0])
    assert np.array_equal(embedded, x.numpy())
    decoder = session(folder / "decoder.onnx")
    targets = ids[:, 1:12]
    logits, logprobs, *_ = decoder.run(None, feeds(base, embedded, None, range(11), targets))
    assert np.abs(logits - wanted[:, :11].numpy()).max() < 1e-4
    expected = wanted[:, :11].log_softmax(-1).gather(2, torch.from_numpy(targets)[..., None])[..., 0]
    assert np.abs(logprobs - expected.numpy()).max() < 1e-4
    _, _, *past = decoder.run(None, feeds(base, embedded[:, :7], None, [6], ids[:, 7:8]))
    logits, *_ = decoder.run(None, feeds(base, embedded[:, 7:8], past, [0], np.zeros((2, 1))))
    assert np.abs(logits - wanted[:, [7]].numpy()).max() < 1e-4
    # Several tokens behind a cache: ONNX Runtime takes one row only.
    past = [p[:1] for p in past]
    logits, *_ = decoder.run(None, feeds(base, embedded[:1, 7:], past, [0, 4], np.zeros((1, 2))))
    assert np.abs(logits - wanted[:1, [7, 11]].numpy()).max() < 1e-4


def test_layout_and_merge(tiny):
    folder, base, language, layout, lora, digest = tiny
    entries = json.loads(gzip.decompress((folder / "layout.json.gz").read_bytes()))
    assert entries == list(layout.entries.values())
    assert all(e["offset"] % PAGE == 0 for e in entries)
    assert (folder / "weights.bin").stat().st_size == layout.end
    assert write_weights(base, layout, lora, None) == digest
    value = merged(base, lora, "deq_t", "blk.1.attn_q.weight", "blk.1.attn_k.weight")[:, 64:]
    whole = language.blocks[1].attn_k
    wanted = (whole.weight + 2 * whole.lora_b @ whole.lora_a).detach().numpy().T
    assert np.abs(value - wanted).max() < 1e-5
    assert np.array_equal(merged(base, lora, "deq_t", "blk.0.ffn_up.weight"), base.values["blk.0.ffn_up.weight"].T)


def test_vision_and_adapter_equal_pytorch(tmp_path):
    torch.manual_seed(1)
    encoder, adapter = Encoder().eval(), Adapter().eval()
    for layer in encoder.layers:  # else both branches are silent
        torch.nn.init.normal_(layer.out.weight, std=0.02)
        torch.nn.init.normal_(layer.down.weight, std=0.02)
    x = torch.randn(3, 1, SIDE, SIDE)
    vision_graph(encoder, len(FINDINGS), tmp_path / "vision.onnx")
    features, findings = session(tmp_path / "vision.onnx").run(None, {"pixel_values": x.numpy()})
    with torch.no_grad():
        wanted = encoder.features(x)
        heads = encoder.logits(wanted)
    assert features.shape == (3, FEATURE_TOKENS, WIDTH)
    assert np.abs(features - wanted.numpy()).mean() < 5e-3
    assert np.abs(findings - heads[:, :len(FINDINGS)].numpy()).max() < 2e-2
    traced_graph(adapter, torch.zeros(2, FEATURE_TOKENS, WIDTH), ["image_features"], ["image_embeds"],
                 tmp_path / "adapter.onnx")
    embeds = session(tmp_path / "adapter.onnx").run(None, {"image_features": features})[0]
    assert embeds.shape == (3, IMAGE_TOKENS, 576)
    with torch.no_grad():
        assert np.abs(embeds - adapter(torch.from_numpy(features)).numpy()).max() < 2e-3


def test_seal_names_every_file(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    manifest = {}
    seal(tmp_path, manifest)
    assert manifest["files"]["a"]["bytes"] == 3
    assert "files" in json.loads((tmp_path / "manifest.json").read_text())
