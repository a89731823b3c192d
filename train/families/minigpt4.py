"""MiniGPT-4 (and XrayGPT, which is built on it): eva_vit.py, Qformer.py and encode_img of github.com/Vision-CAIR/MiniGPT-4 (d94738a, BSD-3-Clause), then
transformers' Llama. eva_vit.py needs timm, which is installed by hand."""

from __future__ import annotations

import contextlib
import sys
import types
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import BertConfig, BlipImageProcessor, LlamaConfig, LlamaForCausalLM

from . import chats, flat, tiny
from .parts import Parts, Store, batched, spelled, still

SIDE, PATCH, WIDTH, QUERIES, HIDDEN, LAYERS, HEADS = 32, 8, 24, 8, 64, 2, 4
FILES = {"eva_vit.py": "63fb32c603970327e596b5b24269537509c6d90f9e244fd772210f873ecc5b08",
         "Qformer.py": "9d1375ffed630df9449e7e5e69072038bf20af5bd0e1cc22ae1f2337b586f95e"}
SPECIALS = ["<|endoftext|>", "<s>", "</s>", "<image>"]
PROMPT = "<s>###Human: <Img><ImageHere></Img> Describe the findings.###Assistant:"


class Vision(torch.nn.Module):
    def __init__(self, eyes):
        super().__init__()
        self.visual_encoder, self.ln_vision = eyes.visual_encoder, eyes.ln_vision

    def forward(self, pixel_values):
        return self.ln_vision(self.visual_encoder(pixel_values))


class Adapter(torch.nn.Module):
    def __init__(self, eyes):
        super().__init__()
        self.query_tokens, self.bert, self.llama_proj = eyes.query_tokens, eyes.Qformer.bert, eyes.llama_proj

    def forward(self, image_features):
        queries = self.query_tokens.expand(image_features.shape[0], -1, -1)
        mask = torch.ones(image_features.shape[:-1], dtype=torch.long)
        return self.llama_proj(self.bert(query_embeds=queries, encoder_hidden_states=image_features, encoder_attention_mask=mask, return_dict=True).last_hidden_state)


class Eyes(torch.nn.Module):
    """What encode_img takes of MiniGPT4, with its Q-Former cut as its init_Qformer cuts it."""

    has_qformer, maybe_autocast = True, contextlib.nullcontext

    def __init__(self, eva, qformer):
        super().__init__()
        self.visual_encoder = eva.VisionTransformer(
            img_size=SIDE, patch_size=PATCH, use_mean_pooling=False, embed_dim=WIDTH, depth=2, num_heads=2, mlp_ratio=2, qkv_bias=True,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6))
        self.ln_vision = torch.nn.LayerNorm(WIDTH)
        config = BertConfig(vocab_size=8, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, attn_implementation="eager")
        config.encoder_width, config.add_cross_attention, config.cross_attention_freq, config.query_length = WIDTH, True, 2, QUERIES
        self.Qformer = qformer.BertLMHeadModel(config=config)
        self.query_tokens = torch.nn.Parameter(torch.zeros(1, QUERIES, WIDTH))
        self.Qformer.cls = self.Qformer.bert.embeddings.word_embeddings = self.Qformer.bert.embeddings.position_embeddings = None
        for layer in self.Qformer.bert.encoder.layer:
            layer.output = layer.intermediate = None
        self.llama_proj = torch.nn.Linear(WIDTH, HIDDEN)


def export(eyes, model, images, tokenizer, store: Store, longest: int) -> Parts:
    """The parts of eyes (as Eyes has them) and a LlamaForCausalLM."""
    preprocess, vision = still(images), Vision(eyes)
    size = (1, preprocess["channels"], preprocess["height"], preprocess["width"])
    store.exported(vision, (torch.zeros(*size),), ["pixel_values"], ["image_features"], "vision.onnx", {"pixel_values": {0: "B"}, "image_features": {0: "B"}})
    features = batched(vision)
    count, width = features(np.zeros(size[1:], np.float32)).shape
    store.exported(Adapter(eyes), (torch.zeros(1, count, width),), ["image_features"], ["image_embeds"], "adapter.onnx", {"image_features": {0: "B"}, "image_embeds": {0: "B"}})
    flat.llama(model.model, model.config, store, model.lm_head.weight)
    return Parts("llava", preprocess, {"feature_tokens": count, "feature_dim": width, "image_tokens": eyes.query_tokens.shape[1]}, flat.llama_shape(model.config, longest),
                 {"splice": "replace_sentinel", "sentinel": "<ImageHere>", "image_token": spelled(tokenizer, tokenizer.convert_tokens_to_ids("<image>"))}, features)


def reference():
    """Their modules. They were written for an older transformers, whose helpers are elsewhere today, and fetch files, which nothing here does."""
    for name in ("apply_chunking_to_forward", "find_pruneable_heads_and_indices", "prune_linear_layer"):
        setattr(transformers.modeling_utils, name, getattr(transformers.pytorch_utils, name))
    for name in ("minigpt4", "minigpt4.common", "minigpt4.common.dist_utils"):
        sys.modules.setdefault(name, types.ModuleType(name))
    sys.modules["minigpt4.common.dist_utils"].download_cached_file = None
    return tiny.outside("minigpt4", FILES)


def make_minigpt4(target: Path):
    eva, qformer = reference()
    encode = chats.taken("minigpt4", "minigpt4.py", "727d93660e56bc6b7bba9a3d261b80f4a29347700998d58bde5d48c55a032baa", ["encode_img"], {"torch": torch})["encode_img"]
    bundle = tiny.Bundle(target, "minigpt4", "MiniGPT4.encode_img, eva_vit.py, Qformer.py of Vision-CAIR/MiniGPT-4 d94738a; transformers 4.57.1 LlamaForCausalLM; prompt ids laid by train/families")
    tok = tiny.tokenizer(bundle.folder, SPECIALS)
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})

    def pixels(gray):
        return tiny.normalised(tiny.resized(gray, SIDE, SIDE), images.image_mean, images.image_std)

    def golden(seed):
        eyes = Eyes(eva, qformer)
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=tok.get_vocab_size(), hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS, num_key_value_heads=HEADS,
            rope_theta=10000.0, max_position_embeddings=256, tie_word_embeddings=False, attn_implementation="eager"))
        tiny.scramble(eyes, seed + 1000, {"llama_proj": 4, "visual_encoder": 1.6, "pos_embed": 0.5, "cls_token": 0.5})
        tiny.scramble(model, seed, {"lm_head": 3, "q_proj": 2, "k_proj": 2})
        made, words = [], model.model.embed_tokens
        for gray in tiny.pictures([(60, 48), (40, 64)]):
            tiny.near(pixels(gray), images(tiny.colour(gray), return_tensors="pt").pixel_values, images.image_std)
            before, after = (tok.encode(part).ids for part in PROMPT.split("<ImageHere>"))
            ids = before + [tok.token_to_id("<image>")] * QUERIES + after
            seen, _ = encode(eyes, pixels(gray))
            embeds = torch.cat([words(torch.tensor([before])), seen, words(torch.tensor([after]))], 1)
            greedy, logits = tiny.generated(model, inputs_embeds=embeds, attention_mask=torch.ones(1, len(ids), dtype=torch.long))
            made.append((gray, Vision(eyes)(pixels(gray)), ids, logits, greedy))
        return eyes, model, made

    eyes, model, made = tiny.search(golden)
    for entry in made:
        bundle.golden(*entry)
    parts = export(eyes, model, images, tiny.fast(tok), bundle.store, tiny.LONGEST)
    bundle.finish(parts, PROMPT, [pixels(g)[0] for g in tiny.pictures([(48, 48), (48, 48)], 11)])
    return model


ONES = {"minigpt4": make_minigpt4}
