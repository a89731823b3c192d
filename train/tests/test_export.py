"""Exported graphs give what PyTorch gives, on random weights of a tiny language model."""

import gzip
import hashlib
import json

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")

from train import adapters  # noqa: E402
from train.encoder import Encoder  # noqa: E402
import onnx  # noqa: E402
from gguf import GGMLQuantizationType, quants  # noqa: E402

from train.base import PANEL, Base  # noqa: E402
from train.export import language_forms, merged, rounded, seal, write_weights  # noqa: E402
from train.graphs import OWN, PAGE, PRECISIONS, Layout, decoder_graph, embed_graph, traced_graph, vision_graph  # noqa: E402
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


def feeds(base, x, past, indices):
    rows = len(x)
    seen = past[0].shape[2] if past else 0
    out = {"inputs_embeds": x, "seqlens_k": np.full(rows, seen + x.shape[1] - 1, np.int32),
           "total_seq": np.array([seen + x.shape[1]], np.int32),
           "logits_indices": np.array(indices, np.int64)}
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
    logits, *_ = decoder.run(None, feeds(base, embedded, None, range(11)))
    assert np.abs(logits - wanted[:, :11].numpy()).max() < 1e-4
    _, *past = decoder.run(None, feeds(base, embedded[:, :7], None, [6]))
    logits, *_ = decoder.run(None, feeds(base, embedded[:, 7:8], past, [0]))
    assert np.abs(logits - wanted[:, [7]].numpy()).max() < 1e-4
    # Several tokens behind a cache: ONNX Runtime takes one row only.
    past = [p[:1] for p in past]
    logits, *_ = decoder.run(None, feeds(base, embedded[:1, 7:], past, [0, 4]))
    assert np.abs(logits - wanted[:1, [7, 11]].numpy()).max() < 1e-4


def test_rounding_equals_pytorch():
    bits = np.random.default_rng(3).integers(0, 1 << 32, 1 << 16, np.uint64).astype(np.uint32)
    values = bits.view(np.float32)
    values = values[np.isfinite(values)]
    with np.errstate(over="ignore"):
        for kind, there in (("float16", torch.float16), ("bfloat16", torch.bfloat16)):
            wanted = torch.from_numpy(values).to(there).view(torch.int16).numpy()
            assert np.array_equal(rounded(values, kind).view(np.int16), wanted)


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


class PackedBase(TinyBase, Base):
    """TinyBase whose matrices are quantised as a GGUF file has them."""

    class Quantised:
        def __init__(self, value, kind):
            self.tensor_type, self.data, self.shape = kind, quants.quantize(value, kind), value.shape[::-1]

    def __init__(self):
        super().__init__()
        for name, value in self.values.items():
            if value.ndim == 1:
                continue
            kind = GGMLQuantizationType.Q8_0 if name.startswith("token") else GGMLQuantizationType.Q4_1
            self.values[name] = quants.dequantize(quants.quantize(value, kind), kind)
        kinds = {n: GGMLQuantizationType.Q8_0 if n.startswith("token") else GGMLQuantizationType.Q4_1 for n in self.values}
        self._tensors = {n: self.Quantised(v, kinds[n]) for n, v in self.values.items() if v.ndim == 2}

    def _in_order(self, name, rows):
        return rows  # the values are in the order that they are wanted in


@pytest.mark.parametrize("op", ["pack_f32", "pack_q4_1", "pack_q8_0"])
def test_packed_matrices_unpack_to_gguf_values(op):
    """Unpacked by the words of docs/bundle.md, a panel after another."""
    base = PackedBase()
    sources = ("token_embd.weight",) if op == "pack_q8_0" else ("blk.0.attn_q.weight", "blk.0.attn_k.weight", "blk.0.attn_v.weight")
    wanted = np.concatenate([base.values[s] for s in sources])
    rows, columns = wanted.shape
    raw = base.packed(op, sources).tobytes()
    got, at = np.zeros((-(-rows // PANEL) * PANEL, columns), np.float32), 0

    def take(kind, *shape):
        nonlocal at
        value = np.frombuffer(raw, kind, int(np.prod(shape)), at).reshape(shape)
        at += value.nbytes
        return value

    for panel in range(0, rows, PANEL):
        to = got[panel:panel + PANEL]
        if op == "pack_f32":
            to[:] = take("<f4", columns, PANEL).T
            continue
        for k in range(0, columns, 32):
            scale = take("<f2", PANEL).astype(np.float32)
            if op == "pack_q8_0":
                to[:, k:k + 32] = (scale * take("i1", 32, PANEL)).T
                continue
            least = take("<f2", PANEL).astype(np.float32)
            for i in range(k, k + 32, 8):
                words = take("<u4", PANEL)
                for j in range(8):
                    to[:, i + j] = scale * (words >> 4 * j & 15) + least
    assert at == len(raw)
    assert np.array_equal(got[:rows], wanted)
    assert not got[rows:].any()


def test_forms_of_a_bundle(tmp_path, tiny):
    """Every form has its files and the borders of docs/bundle.md; flat ones use nothing but the operators there."""
    base, lora = PackedBase(), tiny[4]
    forms = language_forms(tmp_path, base, lora, 64)
    assert [(f["name"], f["kind"], f["precision"]) for f in forms] == [
        ("q4", "flat", "float32"), ("fp32", "flat", "float32"), ("standard", "gqa", "float32"),
        ("half", "gqa", "float16"), ("brain", "gqa", "bfloat16")]
    assert forms[0]["weights_bytes"] < forms[1]["weights_bytes"]
    for form in forms:
        entries = json.loads(gzip.decompress((tmp_path / form["layout"]).read_bytes()))
        assert entries[-1]["offset"] + entries[-1]["bytes"] == form["weights_bytes"]
        graph = onnx.load(str(tmp_path / form["decoder"]), load_external_data=False).graph
        inputs = {i.name for i in graph.input}
        if form["kind"] == "gqa":
            assert {"past_k0", "past_v1", "seqlens_k"} <= inputs and not any(n.domain == OWN for n in graph.node)
            kinds = {i.type.tensor_type.elem_type for i in graph.input if i.name.startswith("past_")}
            assert kinds == {PRECISIONS[form["precision"]][0]} and {e["dtype"] for e in entries} == {form["precision"]}
            continue
        assert {n.op_type for n in graph.node} == {"Linear", "Attention", "Gather"}
        assert {"inputs_embeds", "slot", "at", "upto", "cos", "sin", "logits_indices", "keys0", "values1"} <= inputs
        assert {n for n in inputs if n.startswith("lora_")} == {
            f"lora_{side}:{'+'.join(f'blk.{layer}.{c}.weight' for c in names)}"
            for side in "ab" for layer in range(base.layers) for names in (("attn_q", "attn_k", "attn_v"), ("attn_output",), ("ffn_gate", "ffn_up"), ("ffn_down",))}


def test_adapter_comes_back(tmp_path, tiny):
    lora = tiny[4]
    (tmp_path / "base").write_bytes(b"weights")
    adapters.write(tmp_path / "report", lora, tmp_path / "base", "somebody/base")
    back = adapters.read(tmp_path / "report")
    assert set(back) == set(lora) and all(np.array_equal(back[k], lora[k]) for k in lora)
    config = json.loads((tmp_path / "report" / "adapter_config.json").read_text())
    assert config["base_sha256"] == hashlib.sha256(b"weights").hexdigest()
    assert config["target_modules"] == ["k_proj", "o_proj", "q_proj", "v_proj"]


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
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c").write_bytes(b"abcd")
    manifest = {}
    seal(tmp_path, manifest)
    assert set(manifest["files"]) == {"a", "b/c"}
    assert manifest["files"]["a"]["bytes"] == 3
    assert "files" in json.loads((tmp_path / "manifest.json").read_text())
