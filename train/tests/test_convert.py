"""A checkpoint that transformers wrote becomes the bundle of testdata/families, whose numbers are transformers' own (modelrt, TestParity)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper
from peft import LoraConfig, get_peft_model
from safetensors import safe_open
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PretrainedConfig, Qwen2Config, Qwen2ForCausalLM

REPOSITORY = Path(__file__).resolve().parents[2]
FAMILIES = REPOSITORY / "modelrt/testdata/families"
BINARY = Path(os.environ.get("CHATXRAY_BIN") or REPOSITORY / "bin/chatxray")
"""The binary that `make test` has built."""

sys.path.insert(0, str(REPOSITORY))
from train.families import chats, convert, llama, llava, qwen2vl, gemma3, blip2, fuyu, tiny  # noqa: E402


class PiecesConfig(PretrainedConfig):
    model_type = "pieces"


AutoTokenizer.register(PiecesConfig, fast_tokenizer_class=fuyu.Pieces)  # so that transformers finds the class of fuyu's tests


@pytest.fixture(autouse=True)
def binary():
    if not BINARY.exists():
        pytest.skip("bin/chatxray absent: run `make build`")


def graph(path: Path):
    """Nodes, inputs, outputs and tensors of a graph, wherever the bytes are."""
    model = onnx.load(path)
    tensors = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    del model.graph.initializer[:]
    return model, tensors


def same(ours: Path, theirs: Path) -> None:
    a, mine = graph(ours)
    b, other = graph(theirs)
    assert a == b and mine.keys() == other.keys()
    for name, value in mine.items():
        assert value.dtype == other[name].dtype and np.array_equal(value, other[name]), name


def made(module, name: str, folder: Path):
    """The tiny bundle of that name made anew, and its model and processor as transformers saves them."""
    tiny_one = folder / "tiny"
    model, processor = module.ONES[name](tiny_one)
    chats.dress(tiny_one / name, chats.CHATS[name])
    checkpoint = folder / f"saved {name}"
    model.save_pretrained(checkpoint)
    tokenizer = getattr(processor, "tokenizer", processor)
    tokenizer.eos_token = "<|endoftext|>"
    template = chats.CHATS[name].template
    if template.parent == chats.HUGGING:  # as published checkpoints have it
        processor.chat_template = template.read_text()
    processor.save_pretrained(checkpoint)
    (checkpoint / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    return tiny_one / name, checkpoint


@pytest.mark.parametrize("module, name", [(llava, "llava"), (qwen2vl, "qwen2vl"), (qwen2vl, "qwen25vl"), (gemma3, "gemma3"), (blip2, "blip2"), (fuyu, "fuyu"), (llama, "llama")])
def test_a_checkpoint_becomes_the_bundle_that_is_compared_with_transformers(module, name, tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    theirs, checkpoint = made(module, name, tmp_path)
    ours = tmp_path / "bundle"
    convert.main(["--from", str(checkpoint), "--bundle", str(ours), "--chatxray", str(BINARY), "--max-length", str(chats.CHATS[name].length)])
    told = subprocess.run([BINARY, "bundles", "card", ours], capture_output=True, text=True, check=True).stdout
    assert "Nothing was measured on radiographs" in told and "license:" not in told and ("phantoms" in told) == (name != "llama")
    for part in ("vision", "adapter", "embed", "decoder"):
        if (theirs / f"{part}.onnx").exists():
            same(ours / f"{part}.onnx", theirs / f"{part}.onnx")
            assert graph(ours / f"{part}.onnx")[0] == graph(FAMILIES / name / f"{part}.onnx")[0]  # what TestParity runs
    mine, other = (json.loads((folder / "manifest.json").read_text()) for folder in (ours, FAMILIES / name))
    assert mine["name"] == f"saved-{name}" and mine["license"] == "apache-2.0" and mine["generation"]["stop_tokens"][0] == "<|endoftext|>"
    if name.startswith("qwen2"):  # conversations of the tests are longer than its positions
        other["decoder"]["max_length"] = 256
    for key in ("family", "decoder", "tokenizer"):
        assert mine[key] == other[key], key
    usual = ("width", "height") if name.startswith("qwen2") else ()  # of decoys; any size is read
    assert {k: v for k, v in mine["preprocess"].items() if k not in usual} == {k: v for k, v in other["preprocess"].items() if k not in usual}
    for key in ("splice", "sentinel", "image_token", "image_start", "image_end", "row_end"):
        assert mine["prompt"].get(key) == other["prompt"].get(key), key


def test_what_is_refused(tmp_path, capsys):
    def refused(why, source, *more):
        with pytest.raises(SystemExit) as ended:
            convert.main(["--from", str(source), "--bundle", str(tmp_path / "out"), "--chatxray", str(BINARY), *more])
        assert why in str(ended.value), str(ended.value)
        assert not (tmp_path / "out").exists()

    source = tmp_path / "source"
    source.mkdir()
    refused("no config.json", source)
    (source / "config.json").write_text('{"model_type": "t5"}')
    refused("there is no nowhere.png", source, "--license", "mine", "--decoys", "nowhere.png")
    refused("names no license; say it with --license", source)
    refused("models of the type t5 are not converted; llava, ", source, "--license", "mine")
    small = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, vocab_size=320)
    tok = tiny.tokenizer(source, ["<|endoftext|>"])
    for changed, template, why in (({}, None, "no chat template; give one with --chat-template"), ({"hidden_act": "gelu"}, "x", "with gelu"),
                                   ({"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "x", "positions of the type dynamic")):
        LlamaForCausalLM(LlamaConfig(**small, **changed)).save_pretrained(source)
        tiny.fast(tok, chat_template=template).save_pretrained(source)
        refused(why, source, "--license", "mine")


def test_a_lora_is_added_to_the_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(REPOSITORY)
    _, checkpoint = made(llama, "llama", tmp_path)
    model = LlamaForCausalLM.from_pretrained(checkpoint)
    lora = get_peft_model(model, LoraConfig(r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM"))
    with torch.no_grad():
        for name, value in lora.named_parameters():
            if "lora_B" in name:  # zero at first
                value.normal_(generator=torch.Generator().manual_seed(1))
    lora.save_pretrained(tmp_path / "lora")
    added = LlamaForCausalLM.from_pretrained(checkpoint)
    with safe_open(tmp_path / "lora" / "adapter_model.safetensors", "np") as file, torch.no_grad():
        for name in (n for n in file.keys() if "lora_A" in n):
            total = 5 / 3 * file.get_tensor(name.replace("lora_A", "lora_B")).astype(np.float64) @ file.get_tensor(name).astype(np.float64)
            added.get_parameter(name.removeprefix("base_model.model.").replace(".lora_A", "")).add_(torch.from_numpy(total).float())
    for folder, model in (("apart", checkpoint), ("added", tmp_path / "with")):
        if folder == "added":
            shutil.copytree(checkpoint, model)
            added.save_pretrained(model)
        convert.main(["--from", str(model), "--bundle", str(tmp_path / folder), "--chatxray", str(BINARY)] + (["--lora", str(tmp_path / "lora")] if folder == "apart" else []))
    ours, theirs, plain = (graph(p / "decoder.onnx")[1] for p in (tmp_path / "apart", tmp_path / "added", tmp_path / "tiny" / "llama"))
    changed = [n for n, v in ours.items() if not np.array_equal(v, plain[n])]
    assert len(changed) == 4  # q_proj is part of a product with k_proj and v_proj, in two layers
    for name, value in ours.items():
        kind = np.float32 if name.startswith("matrix") else value.dtype
        np.testing.assert_allclose(value.view(kind), theirs[name].view(kind), rtol=1e-5, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("config_class, model_class, more", [
    (LlamaConfig, LlamaForCausalLM, {"rope_scaling": {"rope_type": "linear", "factor": 4.0}}), (Qwen2Config, Qwen2ForCausalLM, {"tie_word_embeddings": True})])
def test_forms_for_gpus_give_the_logits_of_transformers(config_class, model_class, more, tmp_path):
    """By ONNX Runtime's own operators, on the CPU."""
    source, out = tmp_path / "source", tmp_path / "out"
    source.mkdir()
    tok = tiny.tokenizer(source, ["<|endoftext|>"])
    model = model_class(config_class(vocab_size=tok.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
                                     max_position_embeddings=256, rope_theta=5000.0, attn_implementation="eager", **more))
    tiny.scramble(model, 3, {"q_proj": 2, "k_proj": 2})
    model.save_pretrained(source)
    tiny.fast(tok, chat_template="{{ messages[0]['content'] }}", eos_token="<|endoftext|>").save_pretrained(source)
    convert.main(["--from", str(source), "--bundle", str(out), "--chatxray", str(BINARY), "--license", "mine", "--gpu", "standard", "--gpu", "half"])
    ids = np.array([tok.encode("The heart is enlarged. There is an opacity in the left lung.").ids])
    n = ids.shape[1]
    with torch.no_grad():
        want = model(torch.from_numpy(ids)).logits.numpy()
    spread = want.std()
    assert spread > 0.5
    for form, kind, limit in (("standard", np.float32, 1e-4), ("half", np.float16, 2e-2)):
        embeds, = onnxruntime.InferenceSession(out / f"embed.{form}.onnx").run(None, {"input_ids": ids})
        feed = {"inputs_embeds": embeds, "seqlens_k": np.array([n - 1], np.int32), "total_seq": np.array([n], np.int32), "logits_indices": np.arange(n)}
        feed |= {f"past_{k}{layer}": np.zeros((1, 2, 0, 16), kind) for k in "kv" for layer in range(2)}
        logits = onnxruntime.InferenceSession(out / f"decoder.{form}.onnx").run(["logits"], feed)[0]
        assert np.abs(logits - want).max() < limit * max(1, spread), form
