"""Qwen-VL (ChatXRay's own): modeling_qwen.py and visual.py as they are published with Qwen-VL-Chat (Tongyi Qianwen licence; never
committed here; github.com/x1ngzai/Qwen-VL-Chat-Int4 at 1cd721a2 holds them). Path bytes that the tokenizer puts into the first places of an
image are overwritten by embeddings, so that all places may be pads."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from . import flat, tiny
from .parts import Parts, Store, batched

SIDE, PATCH, WIDTH, QUERIES, HIDDEN, LAYERS, HEADS, DIM = 48, 8, 24, 16, 64, 2, 4, 16
MEAN, STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<ref>", "</ref>", "<box>", "</box>", "<img>", "</img>", "<imgpad>"]
PROMPT = ("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nPicture 1: <img>IMAGE</img>\nDescribe it.<|im_end|>\n"
          "<|im_start|>assistant\n")
FILES = {"configuration_qwen.py": "b3ee489a6473424d231f2702d4331f1b67165224538dd5c3877250d73732efa7",
         "visual.py": "db8b52c5cec73ddc4fdcc55a7eacaf172efde7f06d6c00ca79e7936c528be8f2",
         "qwen_generation_utils.py": "7add81d401ac8083d44c3738e5ee18d1d9eefecdc844ec71a1b3f0a0446a68dd",
         "modeling_qwen.py": "1b49be8d7e5b11fa51d1fbb62fdf4d9f9069657a5feda4e5a44c5758d4f8450a"}


class Features(torch.nn.Module):
    """The transformer of the vision encoder; the resampler is the adapter."""

    def __init__(self, visual, positions):
        super().__init__()
        self.visual, self.positions = visual, positions

    def forward(self, pixel_values):
        v = self.visual
        x = v.conv1(pixel_values).flatten(2).permute(0, 2, 1) + self.positions
        return v.transformer(v.ln_pre(x).permute(1, 0, 2)).permute(1, 0, 2)


class Adapter(torch.nn.Module):
    def __init__(self, visual):
        super().__init__()
        self.visual = visual

    def forward(self, image_features):
        v = self.visual
        return v.ln_post(v.attn_pool(image_features)) @ v.proj


def language(model, config, store: Store, head) -> None:
    heads, dim = config.num_attention_heads, config.kv_channels
    graph = flat.Flat(store, config.hidden_size, heads, heads, dim, dim)
    x = "inputs_embeds"

    def norm(module):
        return flat.RMS_NORM, module.eps, flat.numbers(module.weight), None

    for i, block in enumerate(model.h):
        qkv = graph.linear(x, flat.numbers(block.attn.c_attn.weight), norm=norm(block.ln_1), bias=flat.numbers(block.attn.c_attn.bias))
        x = graph.linear(graph.attention(qkv, i), flat.numbers(block.attn.c_proj.weight), residual=x)
        gates = graph.linear(x, np.concatenate([flat.numbers(block.mlp.w2.weight), flat.numbers(block.mlp.w1.weight)]), norm=norm(block.ln_2))
        x = graph.linear(gates, flat.numbers(block.mlp.c_proj.weight), residual=x, before=flat.SILU_GATE)
    graph.head(x, flat.numbers(head), norm=norm(model.ln_f))
    graph.save("decoder", store.folder / "decoder.onnx")
    flat.embed_graph(flat.numbers(model.wte.weight), store)


def export(model, positions, store: Store, longest: int) -> Parts:
    """The parts of a QWenLMHeadModel with a visual. ``positions`` is visual.get_abs_pos."""
    config, eyes = model.config, model.transformer.visual
    side, = set(eyes.image_size)
    patches = (side // eyes.patch_size[0]) ** 2
    features = Features(eyes, positions(eyes.positional_embedding, patches))
    store.exported(features, (torch.zeros(1, 3, side, side),), ["pixel_values"], ["image_features"], "vision.onnx",
                   {"pixel_values": {0: "B"}, "image_features": {0: "B"}})
    width, queries = eyes.positional_embedding.shape[-1], config.visual["n_queries"]
    store.exported(Adapter(eyes), (torch.zeros(1, patches, width),), ["image_features"], ["image_embeds"], "adapter.onnx",
                   {"image_features": {0: "B"}, "image_embeds": {0: "B"}})
    language(model.transformer, config, store, model.lm_head.weight)
    heads = config.num_attention_heads
    return Parts(
        "qwenvl", {"width": side, "height": side, "channels": 3, "fit": "squash", "interpolation": "bicubic", "mean": MEAN, "std": STD, "voi": "default"},
        {"feature_tokens": patches, "feature_dim": width, "image_tokens": queries},
        {"max_length": min(longest, config.seq_length), "layers": config.num_hidden_layers, "heads": heads, "kv_heads": heads, "head_dim": config.kv_channels,
         "hidden": config.hidden_size, "vocab": config.vocab_size, "rope_theta": float(config.rotary_emb_base)},
        {"splice": "overwrite_pads", "sentinel": "IMAGE", "image_token": "<imgpad>"}, batched(features), {"boxes": {"syntax": "qwen", "range": 999}},
        (tensors(model.transformer, model.lm_head.weight), config.layer_norm_epsilon))


def tensors(model, head) -> dict:
    """The language model's tensors, called as in gqa.py."""
    found = {"token_embd.weight": model.wte.weight, "output.weight": head, "output_norm.weight": model.ln_f.weight}
    for i, block in enumerate(model.h):
        for kind in ("weight", "bias"):
            for name, value in zip("qkv", getattr(block.attn.c_attn, kind).chunk(3)):
                found[f"blk.{i}.attn_{name}.{kind}"] = value
        for name, module in (("attn_norm", block.ln_1), ("attn_output", block.attn.c_proj), ("ffn_norm", block.ln_2), ("ffn_gate", block.mlp.w2),
                             ("ffn_up", block.mlp.w1), ("ffn_down", block.mlp.c_proj)):
            found[f"blk.{i}.{name}.weight"] = module.weight
    return found


def load(source: Path):
    """The model of a checkpoint of Qwen-VL, which brings its code along, and export for it."""
    configuration, visual, _, modeling = tiny.outside("qwenvl", FILES, folder=source)
    config = configuration.QWenConfig.from_pretrained(source, local_files_only=True)
    config.fp32, config.bf16, config.fp16, config.use_flash_attn = True, False, False, False
    model = modeling.QWenLMHeadModel.from_pretrained(source, config=config, local_files_only=True, dtype="auto")
    return model, lambda model, processor, store, longest: export(model, visual.get_abs_pos, store, longest)


def make_qwenvl(target: Path):
    configuration, visual, _, modeling = tiny.outside("qwenvl", FILES)
    bundle = tiny.Bundle(target, "qwenvl", "modeling_qwen.py and visual.py of Qwen-VL-Chat")
    tok = tiny.tokenizer(bundle.folder, SPECIALS)
    vocab, start = tok.get_vocab_size(), tok.token_to_id("<img>")
    resampler = visual.Resampler
    visual.Resampler = lambda num_heads, **named: resampler(num_heads=2, **named)  # the file has a head for every 128
    grays = tiny.pictures([(60, 64), (80, 56)])

    def pixels(gray):
        return tiny.normalised(tiny.resized(gray, SIDE, SIDE), MEAN, STD)

    def golden(seed):
        model = modeling.QWenLMHeadModel(configuration.QWenConfig(
            vocab_size=vocab, hidden_size=HIDDEN, num_hidden_layers=LAYERS, num_attention_heads=HEADS, kv_channels=DIM, intermediate_size=192,
            max_position_embeddings=256, seq_length=256, fp32=True, use_flash_attn=False,
            visual={"heads": 2, "image_size": SIDE, "image_start_id": start, "layers": 2, "mlp_ratio": 2.0, "output_dim": HIDDEN,
                    "patch_size": PATCH, "width": WIDTH, "n_queries": QUERIES}))
        eyes = model.transformer.visual
        grid = eyes.attn_pool.pos_embed.clone()
        tiny.scramble(model, seed, {"lm_head": 3, "c_attn": 1.7, "visual.conv1": 4, "visual.transformer": 1.5, "attn_pool.query": 4, "visual.proj": 3})
        eyes.attn_pool.pos_embed.copy_(grid)
        made = []
        for gray in grays:
            tiny.near(pixels(gray), eyes.image_transform(tiny.colour(gray))[None], STD)
            eyes.encode = lambda paths, gray=gray: eyes(pixels(gray))
            before, after = (tok.encode(part).ids for part in PROMPT.split("IMAGE"))
            ids = before + [tok.token_to_id("<imgpad>")] * QUERIES + after

            def forward(fed, everything, past):
                out = model(torch.tensor([fed]), past_key_values=past, attention_mask=torch.ones(1, len(everything), dtype=torch.long),
                            use_cache=True, return_dict=True)
                return out.logits[0], out.past_key_values

            greedy, logits = tiny.stepped(forward, ids)
            caught = []
            hook = eyes.attn_pool.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
            eyes(pixels(gray))
            hook.remove()
            made.append((gray, caught[0], ids, logits, greedy))
        return model, made

    model, made = tiny.search(golden)
    for entry in made:
        bundle.golden(*entry)
    parts = export(model, visual.get_abs_pos, bundle.store, tiny.LONGEST)
    bundle.finish(parts, PROMPT, [pixels(g)[0] for g in tiny.pictures([(48, 48), (48, 48)], 11)])
    return model


ONES = {"qwenvl": make_qwenvl}
