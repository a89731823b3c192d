"""Fuyu: transformers' FuyuForCausalLM (Persimmon) and its processors."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import FuyuConfig, FuyuForCausalLM, FuyuImageProcessor, FuyuProcessor, PreTrainedTokenizerFast

from . import flat, tiny

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


def language(model, config, folder: Path, head) -> None:
    graph = flat.Flat(HIDDEN, HEADS, HEADS, DIM, ROTARY)
    x = "inputs_embeds"

    def norm(module):
        return flat.LAYER_NORM, config.layer_norm_eps, flat.numbers(module.weight), flat.numbers(module.bias)

    for i, layer in enumerate(model.layers):
        a, m = layer.self_attn, layer.mlp

        def apart(value):  # a head's query, key and value stand together
            return flat.numbers(value).reshape(HEADS, 3, DIM, -1).swapaxes(0, 1).reshape(3 * HIDDEN, -1)

        qkv = graph.linear(x, apart(a.query_key_value.weight), norm=norm(layer.input_layernorm), bias=apart(a.query_key_value.bias)[:, 0])
        qkv = graph.normed_heads(qkv, [norm(a.q_layernorm), norm(a.k_layernorm), None])
        x = graph.linear(graph.attention(qkv, i), flat.numbers(a.dense.weight), bias=flat.numbers(a.dense.bias), residual=x)
        inner = graph.linear(x, flat.numbers(m.dense_h_to_4h.weight), norm=norm(layer.post_attention_layernorm), bias=flat.numbers(m.dense_h_to_4h.bias))
        inner = graph.add("Relu", [inner], graph.name("relu"))
        inner = graph.add("Mul", [inner, inner], graph.name("squared"))
        x = graph.linear(inner, flat.numbers(m.dense_4h_to_h.weight), bias=flat.numbers(m.dense_4h_to_h.bias), residual=x)
    graph.head(x, flat.numbers(head), norm=norm(model.final_layernorm))
    graph.save("decoder", folder / "decoder.onnx")
    flat.embed_graph(flat.numbers(model.embed_tokens.weight), folder / "embed.onnx")


def make(target: Path) -> None:
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
    tiny.exported(Adapter(model), (torch.zeros(1, 48, PATCH_DIM),), ["image_features"], ["image_embeds"], bundle.folder / "adapter.onnx",
                  {"image_features": {1: "P"}, "image_embeds": {1: "P"}})
    language(model.model.language_model, model.config.text_config, bundle.folder, model.lm_head.weight)
    decoys = np.concatenate([patches(g).numpy() for g in tiny.pictures([(HIGH, WIDE)] * 2, 11)])
    count = HIGH * WIDE // PATCH ** 2
    bundle.finish(
        {"width": WIDE, "height": HIGH, "channels": 3, "fit": "keep", "interpolation": "bilinear", "mean": [0.5] * 3, "std": [0.5] * 3,
         "voi": "default", "patch": PATCH, "pad_value": 1 / 255},
        {"input": "patches", "patch_dim": PATCH_DIM, "feature_tokens": count, "feature_dim": PATCH_DIM, "image_tokens": count},
        {"layers": LAYERS, "heads": HEADS, "kv_heads": HEADS, "head_dim": DIM, "hidden": HIDDEN, "vocab": vocab, "rope_theta": 25000.0,
         "rotary": ROTARY},
        {"splice": "rows_with_newline", "sentinel": "|SPEAKER|", "image_token": "|SPEAKER|", "row_end": "|NEWLINE|",
         "template": "|SPEAKER|<s>" + TEXT + "<0x04>"}, decoys)
