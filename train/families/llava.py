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

from . import flat, gqa, tiny
from .parts import Parts, Store, Unsupported, batched, spelled, still

SIDE, PATCH, HIDDEN, LAYERS, HEADS, KV, DIM = 32, 8, 64, 2, 4, 2, 16
TOKENS = (SIDE // PATCH) ** 2
PROMPT = "<s>USER: <image>\nDescribe the findings. ASSISTANT:"
SPECIALS = ["<|endoftext|>", "<s>", "<image>"]


class Vision(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.tower, self.layer = model.model.vision_tower, model.config.vision_feature_layer
        self.first = 1 if model.config.vision_feature_select_strategy == "default" else 0  # without the class token

    def forward(self, pixel_values):
        return self.tower(pixel_values, output_hidden_states=True).hidden_states[self.layer][:, self.first:]


def export(model, processor, store: Store, longest: int) -> Parts:
    """The parts of a LlavaForConditionalGeneration: one layer of a vision tower that takes images of one size, Llama-like text."""
    config, shape = model.config, flat.llama_shape(model.config.text_config, longest)
    if not isinstance(config.vision_feature_layer, int):
        raise Unsupported(f"features of the layers {config.vision_feature_layer} together (vision_feature_layer)")
    preprocess, vision = still(processor.image_processor), Vision(model)
    size = (1, preprocess["channels"], preprocess["height"], preprocess["width"])
    store.exported(vision, (torch.zeros(*size),), ["pixel_values"], ["image_features"], "vision.onnx",
                   {"pixel_values": {0: "B"}, "image_features": {0: "B"}})
    features = batched(vision)
    tokens, width = features(np.zeros(size[1:], np.float32)).shape
    store.exported(copy.deepcopy(model.model.multi_modal_projector), (torch.zeros(1, tokens, width),), ["image_features"], ["image_embeds"],
                   "adapter.onnx", {"image_features": {0: "B"}, "image_embeds": {0: "B"}})
    flat.llama(model.model.language_model, config.text_config, store, model.lm_head.weight)
    token = spelled(processor.tokenizer, config.image_token_id)
    return Parts("llava", preprocess, {"feature_tokens": tokens, "feature_dim": width, "image_tokens": tokens},
                 shape, {"splice": "overwrite_pads", "sentinel": token, "image_token": token}, features,
                 tensors=(gqa.llama(model.model.language_model, model.lm_head.weight), config.text_config.rms_norm_eps))


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


def make_one(target: Path, name: str, reference: str, specials: list[str], image_token: str, prompt: str, projector):
    bundle = tiny.Bundle(target, name, reference)
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
    parts = export(model, processor, bundle.store, tiny.LONGEST)
    parts.prompt["splice"] = "replace_sentinel"
    bundle.finish(parts, prompt, [pixels(g)[0] for g in tiny.pictures([(48, 48), (48, 48)], 11)])
    return model, processor


MADE_BY = "transformers 4.57.1 LlavaForConditionalGeneration, LlavaProcessor, CLIPImageProcessor"


def make_llava(target: Path):
    return make_one(target, "llava", MADE_BY, SPECIALS, "<image>", PROMPT, None)


def make_yivl(target: Path):
    builder, = tiny.outside("yi", {"builder.py": "5113f4e75ba118b5aa0ba111b2a8e7d8c8900cd6333a843a10911c07e6744733"})
    config = types.SimpleNamespace(mm_projector_type="mlp2x_gelu_Norm", mm_hidden_size=24, hidden_size=HIDDEN)
    return make_one(target, "yivl", MADE_BY + "; projector of 01-ai/Yi f73194cc", ["<|endoftext|>", "<|startoftext|>", "<image_placeholder>"],
                    "<image_placeholder>", "<|startoftext|>### Human: <image_placeholder>\nDescribe the findings.\n### Assistant:",
                    lambda: builder.build_vision_projector(config))


ONES = {"llava": make_llava, "yivl": make_yivl}
