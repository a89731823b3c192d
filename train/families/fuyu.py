"""Fuyu: transformers' FuyuForCausalLM (Persimmon) and its processors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import FuyuConfig, FuyuForCausalLM, FuyuImageProcessor, FuyuProcessor, PreTrainedTokenizerFast

from . import flat, tiny
from .parts import INTERPOLATIONS, Parts, Store, Unsupported, spelled

HIGH, WIDE, PATCH, HIDDEN, LAYERS, HEADS, DIM, ROTARY = 48, 64, 8, 64, 2, 4, 16, 8
PATCH_DIM = PATCH * PATCH * 3
SPECIALS = ["<|endoftext|>", "|ENDOFTEXT|", "<s>", "</s>", "|SPEAKER|", "|NEWLINE|", "<0x00>", "<0x01>", "<0x02>", "<0x03>", "<0x04>"]
TEXT = "Describe the findings.\n"


class Pieces(PreTrainedTokenizerFast):
    """The processor expects the leading piece that SentencePiece puts before a lone special token."""

    def encode(self, text, **named):
        ids = super().encode(text, **named)
        return [0] + ids if text in ("|SPEAKER|", "|NEWLINE|") else ids


class Adapter(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.embed = model.model.vision_embed_tokens

    def forward(self, image_features):
        return self.embed(image_features)


def language(model, config, store: Store, head) -> None:
    heads, dim = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    graph = flat.Flat(store, config.hidden_size, heads, heads, dim, turned(config))
    x = "inputs_embeds"

    def norm(module):
        return flat.LAYER_NORM, config.layer_norm_eps, flat.numbers(module.weight), flat.numbers(module.bias)

    for i, layer in enumerate(model.layers):
        a, m = layer.self_attn, layer.mlp

        def apart(value):  # a head's query, key and value stand together
            return flat.numbers(value).reshape(heads, 3, dim, -1).swapaxes(0, 1).reshape(3 * heads * dim, -1)

        qkv = graph.linear(x, apart(a.query_key_value.weight), norm=norm(layer.input_layernorm), bias=apart(a.query_key_value.bias)[:, 0])
        qkv = graph.normed_heads(qkv, [norm(a.q_layernorm), norm(a.k_layernorm), None])
        x = graph.linear(graph.attention(qkv, i), flat.numbers(a.dense.weight), bias=flat.numbers(a.dense.bias), residual=x)
        inner = graph.linear(x, flat.numbers(m.dense_h_to_4h.weight), norm=norm(layer.post_attention_layernorm), bias=flat.numbers(m.dense_h_to_4h.bias))
        inner = graph.add("Relu", [inner], graph.name("relu"))
        inner = graph.add("Mul", [inner, inner], graph.name("squared"))
        x = graph.linear(inner, flat.numbers(m.dense_4h_to_h.weight), bias=flat.numbers(m.dense_4h_to_h.bias), residual=x)
    graph.head(x, flat.numbers(head), norm=norm(model.final_layernorm))
    graph.save("decoder", store.folder / "decoder.onnx")
    flat.embed_graph(flat.numbers(model.embed_tokens.weight), store)


def turned(config) -> int:
    """How many numbers of a head the positions turn."""
    return int(config.hidden_size // config.num_attention_heads * config.partial_rotary_factor)


def export(model, processor, store: Store, longest: int) -> Parts:
    """The parts of a FuyuForCausalLM."""
    config, text, images = model.config, model.config.text_config, processor.image_processor
    patch, high, wide = config.patch_size, images.size["height"], images.size["width"]
    if text.hidden_act != "relu2" or not text.qk_layernorm or images.patch_size != {"height": patch, "width": patch}:
        raise Unsupported("another activation than relu2, no norms of query and key, or other patches than the model takes")
    dim, count = patch * patch * config.num_channels, (high // patch) * (wide // patch)
    store.exported(Adapter(model), (torch.zeros(1, 48, dim),), ["image_features"], ["image_embeds"], "adapter.onnx",
                   {"image_features": {1: "P"}, "image_embeds": {1: "P"}})
    language(model.model.language_model, text, store, model.lm_head.weight)
    heads, token, line = text.num_attention_heads, spelled(processor.tokenizer, config.image_token_id), "|NEWLINE|"
    return Parts(
        "fuyu", {"width": wide, "height": high, "channels": 3, "fit": "keep", "interpolation": INTERPOLATIONS[int(images.resample)], "mean": channels(images.image_mean),
                 "std": channels(images.image_std), "voi": "default", "patch": patch, "pad_value": images.padding_value / 255},
        {"input": "patches", "patch_dim": dim, "feature_tokens": count, "feature_dim": dim, "image_tokens": count},
        {"max_length": min(longest, text.max_position_embeddings), "layers": text.num_hidden_layers, "heads": heads, "kv_heads": heads, "head_dim": text.hidden_size // heads,
         "hidden": text.hidden_size, "vocab": text.vocab_size, **flat.rotary(text), "rotary": turned(text)},
        {"splice": "rows_with_newline", "sentinel": token, "image_token": token, "row_end": line},
        lambda tensor: images.patchify_image(torch.from_numpy(np.ascontiguousarray(tensor, np.float32))[None])[0].numpy())


def channels(value) -> list[float]:
    return list(value) if isinstance(value, (list, tuple)) else [float(value)] * 3


def make_fuyu(target: Path):
    bundle = tiny.Bundle(target, "fuyu", "transformers 4.57.1 FuyuForCausalLM, FuyuProcessor, FuyuImageProcessor")
    tok = tiny.tokenizer(bundle.folder, SPECIALS)
    vocab = tok.get_vocab_size()
    images = FuyuImageProcessor(size={"height": HIGH, "width": WIDE}, patch_size={"height": PATCH, "width": PATCH})
    processor = FuyuProcessor(image_processor=images, tokenizer=tiny.fast(tok, Pieces))
    grays = tiny.pictures([(90, 100), (37, 60)])

    def patches(gray):
        rows, columns = gray.shape
        scale = min(HIGH / rows, WIDE / columns)
        height, width = (int(rows * scale), int(columns * scale)) if scale < 1 else (rows, columns)
        picture = tiny.resized(gray, width, height, Image.Resampling.BILINEAR)
        padded = np.full((math.ceil(height / PATCH) * PATCH, math.ceil(width / PATCH) * PATCH), 1 / 255, np.float32)
        padded[:height, :width] = picture
        return images.patchify_image(tiny.normalised(padded, [0.5] * 3, [0.5] * 3))

    def golden(seed):
        model = FuyuForCausalLM(FuyuConfig(
            vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=128, num_hidden_layers=LAYERS, num_attention_heads=HEADS, patch_size=PATCH,
            max_position_embeddings=256, rope_theta=25000.0, partial_rotary_factor=ROTARY / DIM, image_token_id=tok.token_to_id("|SPEAKER|"),
            attn_implementation="eager"))
        tiny.scramble(model, seed, {"lm_head": 3, "q_layernorm": 3, "self_attn.dense": 2, "dense_4h": 0.5, "vision_embed": 3})
        made = []
        for gray in grays:
            inputs = processor(images=[tiny.colour(gray)], text=TEXT)
            tiny.near(patches(gray)[0], inputs["image_patches"][0], [0.5])
            greedy, logits = tiny.generated(model, input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"],
                                            image_patches=patches(gray), image_patches_indices=inputs["image_patches_indices"])
            made.append((gray, patches(gray), inputs["input_ids"][0].tolist(), logits, greedy))
        return model, made

    model, made = tiny.search(golden)
    for entry in made:
        bundle.golden(*entry)
    parts = export(model, processor, bundle.store, tiny.LONGEST)
    bundle.finish(parts, "|SPEAKER|<s>" + TEXT + "<0x04>", [
        tiny.normalised(tiny.resized(g, WIDE, HIGH, Image.Resampling.BILINEAR), [0.5] * 3, [0.5] * 3)[0] for g in tiny.pictures([(HIGH, WIDE)] * 2, 11)])
    return model, processor


ONES = {"fuyu": make_fuyu}
