"""LLaVA: transformers' LlavaForConditionalGeneration, a CLIP vision tower at layer -2, two layers of MLP, Llama. And Yi-VL, the same
with the projector of github.com/01-ai/Yi (f73194cc, VL/llava/model/multimodal_projector/builder.py, Apache-2.0): an MLP with LayerNorms."""

from __future__ import annotations

import copy
import types
from pathlib import Path

import numpy as np
import torch
from transformers import (CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration,
                          LlavaProcessor)

from . import flat, tiny

SIDE, PATCH, HIDDEN, LAYERS, HEADS, KV, DIM = 32, 8, 64, 2, 4, 2, 16
TOKENS = (SIDE // PATCH) ** 2
PROMPT = "<s>USER: <image>\nDescribe the findings. ASSISTANT:"
SPECIALS = ["<|endoftext|>", "<s>", "<image>"]


class Vision(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.tower = model.model.vision_tower

    def forward(self, pixel_values):
        return self.tower(pixel_values, output_hidden_states=True).hidden_states[-2][:, 1:]


def weights(seed: int, vocab: int, image: int, projector):
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=24, intermediate_size=48, num_hidden_layers=3, num_attention_heads=2,
                                       image_size=SIDE, patch_size=PATCH, projection_dim=24),
        text_config=LlamaConfig(vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS,
                                num_attention_heads=HEADS, num_key_value_heads=KV, head_dim=DIM, rope_theta=10000.0,
                                max_position_embeddings=256, tie_word_embeddings=False),
        image_token_index=image, image_seq_length=TOKENS, vision_feature_layer=-2, vision_feature_select_strategy="default",
        attn_implementation="eager")
    model = LlavaForConditionalGeneration(config)
    if projector:
        model.model.multi_modal_projector = projector()
    tiny.scramble(model, seed, {"lm_head": 3, "q_proj": 2, "k_proj": 2, "multi_modal_projector": 1.5})
    for module in model.model.multi_modal_projector.modules():
        if isinstance(module, torch.nn.LayerNorm):  # their names in a Sequential do not say so
            module.weight += 1
    return model


def make_one(target: Path, name: str, reference: str, specials: list[str], image_token: str, prompt: str, projector) -> None:
    bundle = tiny.Bundle(target, name, reference, "llava")
    tok = tiny.tokenizer(bundle.folder, specials)
    vocab, image = tok.get_vocab_size(), tok.token_to_id(image_token)
    grays = tiny.pictures([(60, 48), (40, 60)])
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}),
        tokenizer=tiny.fast(tok), patch_size=PATCH, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token=image_token)
    mean, std = processor.image_processor.image_mean, processor.image_processor.image_std

    def pixels(gray):
        rows, columns = gray.shape
        height, width = (SIDE, SIDE * columns // rows) if rows < columns else (SIDE * rows // columns, SIDE)
        top, left = (height - SIDE) // 2, (width - SIDE) // 2
        return tiny.normalised(tiny.resized(gray, width, height)[top:top + SIDE, left:left + SIDE], mean, std)

    def golden(seed):
        model, made = weights(seed, vocab, image, projector), []
        for some, text in ((grays[:1], prompt), (grays[1:], prompt), (grays, prompt.replace(image_token, f"{image_token} and {image_token}"))):
            inputs = processor(images=[tiny.colour(g) for g in some], text=text, return_tensors="pt", add_special_tokens=False)
            values = torch.cat([pixels(g) for g in some])
            tiny.near(values, inputs.pixel_values, std)
            inputs["pixel_values"] = values
            greedy, logits = tiny.generated(model, **inputs)
            made.append((some, Vision(model)(values), inputs.input_ids[0].tolist(), logits, greedy, text))
        return model, made

    model, made = tiny.search(golden)
    for entry in made:
        bundle.golden(*entry[:-1], prompt=entry[-1])
    tiny.exported(Vision(model), (torch.zeros(1, 3, SIDE, SIDE),), ["pixel_values"], ["image_features"], bundle.folder / "vision.onnx",
                  {"pixel_values": {0: "B"}, "image_features": {0: "B"}})
    tiny.exported(copy.deepcopy(model.model.multi_modal_projector), (torch.zeros(1, TOKENS, 24),), ["image_features"], ["image_embeds"],
                  bundle.folder / "adapter.onnx", {"image_features": {0: "B"}, "image_embeds": {0: "B"}})
    flat.llama(model.model.language_model, model.config.text_config, bundle.folder, model.lm_head.weight)
    decoys = np.concatenate([Vision(model)(pixels(g)).numpy() for g in tiny.pictures([(48, 48), (48, 48)], 11)])
    bundle.finish(
        {"width": SIDE, "height": SIDE, "channels": 3, "fit": "crop", "interpolation": "bicubic", "mean": mean, "std": std, "voi": "default"},
        {"feature_tokens": TOKENS, "feature_dim": 24, "image_tokens": TOKENS},
        {"layers": LAYERS, "heads": HEADS, "kv_heads": KV, "head_dim": DIM, "hidden": HIDDEN, "vocab": vocab, "rope_theta": 10000.0},
        {"splice": "replace_sentinel", "sentinel": image_token, "image_token": image_token, "template": prompt}, decoys)


def make(target: Path) -> None:
    made_by = "transformers 4.57.1 LlavaForConditionalGeneration, LlavaProcessor, CLIPImageProcessor"
    make_one(target, "llava", made_by, SPECIALS, "<image>", PROMPT, None)
    builder, = tiny.outside("yi", {"builder.py": "5113f4e75ba118b5aa0ba111b2a8e7d8c8900cd6333a843a10911c07e6744733"})
    config = types.SimpleNamespace(mm_projector_type="mlp2x_gelu_Norm", mm_hidden_size=24, hidden_size=HIDDEN)
    make_one(target, "yivl", made_by + "; projector of 01-ai/Yi f73194cc", ["<|endoftext|>", "<|startoftext|>", "<image_placeholder>"],
             "<image_placeholder>", "<|startoftext|>### Human: <image_placeholder>\nDescribe the findings.\n### Assistant:",
             lambda: builder.build_vision_projector(config))
