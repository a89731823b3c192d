"""Gemma 3 (MedGemma): transformers' Gemma3ForConditionalGeneration with a SigLIP tower."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from transformers import (Gemma3Config, Gemma3ForConditionalGeneration, Gemma3ImageProcessor, Gemma3Processor, Gemma3TextConfig,
                          GemmaTokenizerFast, SiglipVisionConfig)

from . import flat, tiny
from .parts import Parts, Store, Unsupported, batched, spelled, still

SIDE, PATCH, WIDTH, HIDDEN, LAYERS, HEADS, KV, DIM, WINDOW, TOKENS = 32, 4, 24, 48, 3, 2, 1, 16, 20, 16
SPECIALS = ["<|endoftext|>", "<bos>", "<eos>", "<unk>", "<pad>", "<start_of_turn>", "<end_of_turn>", "<start_of_image>", "<end_of_image>",
            "<image_soft_token>"]
PROMPT = "<start_of_turn>user\n<start_of_image>Describe the findings.<end_of_turn>\n<start_of_turn>model\n"
TWICE = PROMPT.replace("<start_of_image>", "Before <start_of_image> and after <start_of_image>")


class Vision(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.tower = model.model.vision_tower

    def forward(self, pixel_values):
        return self.tower(pixel_values).last_hidden_state


def language(model, config, store: Store, head) -> None:
    graph = flat.Flat(store, config.hidden_size, config.num_attention_heads, config.num_key_value_heads, config.head_dim, config.head_dim, local=True)
    eps = config.rms_norm_eps
    x = "inputs_embeds"

    def norm(module):
        return flat.RMS_NORM, eps, 1 + flat.numbers(module.weight), None

    def added(branch, module, x):
        branch = graph.add("SimplifiedLayerNormalization", [branch, graph.vector(1 + flat.numbers(module.weight))], graph.name("after"),
                           axis=-1, epsilon=float(eps))
        return graph.add("Add", [x, branch], graph.name("sum"))

    for i, layer in enumerate(model.layers):
        a, m = layer.self_attn, layer.mlp
        qkv = graph.linear(x, np.concatenate([flat.numbers(p.weight) for p in (a.q_proj, a.k_proj, a.v_proj)]), norm=norm(layer.input_layernorm))
        qkv = graph.normed_heads(qkv, [norm(a.q_norm), norm(a.k_norm), None])
        mixed = graph.attention(qkv, i, window=a.sliding_window or 0, scale=config.query_pre_attn_scalar ** -0.5,
                                turns=("cos_local", "sin_local") if a.is_sliding else ("cos", "sin"))
        x = added(graph.linear(mixed, flat.numbers(a.o_proj.weight)), layer.post_attention_layernorm, x)
        gates = graph.linear(x, np.concatenate([flat.numbers(m.gate_proj.weight), flat.numbers(m.up_proj.weight)]),
                             norm=norm(layer.pre_feedforward_layernorm))
        x = added(graph.linear(gates, flat.numbers(m.down_proj.weight), before=flat.GELU_TANH_GATE), layer.post_feedforward_layernorm, x)
    graph.head(x, flat.numbers(head), norm=norm(model.norm))
    graph.save("decoder", store.folder / "decoder.onnx")
    flat.embed_graph(flat.numbers(model.embed_tokens.weight), store, float(model.embed_tokens.embed_scale))


def export(model, processor, store: Store, longest: int) -> Parts:
    """The parts of a Gemma3ForConditionalGeneration."""
    config, text = model.config, model.config.text_config
    if text.hidden_activation != "gelu_pytorch_tanh" or text.attn_logit_softcapping or text.final_logit_softcapping or text.attention_bias:
        raise Unsupported("a language model with another activation, with caps of its logits or biases")
    preprocess, vision = still(processor.image_processor), Vision(model)
    size = (1, preprocess["channels"], preprocess["height"], preprocess["width"])
    store.exported(vision, (torch.zeros(*size),), ["pixel_values"], ["image_features"], "vision.onnx", {"pixel_values": {0: "B"}, "image_features": {0: "B"}})
    features = batched(vision)
    patches, width = features(np.zeros(size[1:], np.float32)).shape
    store.exported(copy.deepcopy(model.model.multi_modal_projector), (torch.zeros(1, patches, width),), ["image_features"], ["image_embeds"], "adapter.onnx",
                   {"image_features": {0: "B"}, "image_embeds": {0: "B"}})
    language(model.model.language_model, text, store, model.lm_head.weight)
    token, start, end = (spelled(processor.tokenizer, i) for i in (config.image_token_id, config.boi_token_index, config.eoi_token_index))
    return Parts(
        "gemma3", preprocess, {"feature_tokens": patches, "feature_dim": width, "image_tokens": config.mm_tokens_per_image},
        {"max_length": min(longest, text.max_position_embeddings), "layers": text.num_hidden_layers, "heads": text.num_attention_heads, "kv_heads": text.num_key_value_heads,
         "head_dim": text.head_dim, "hidden": text.hidden_size, "vocab": text.vocab_size, **flat.rotary(text),
         "rope_theta_local": float(text.rope_local_base_freq), "mask": "image-bidirectional"},
        {"splice": "overwrite_pads", "sentinel": start, "image_token": token, "image_start": f"\n\n{start}", "image_end": f"{end}\n\n"}, features)


def make_gemma3(target: Path):
    bundle = tiny.Bundle(target, "gemma3", "transformers 4.57.1 Gemma3ForConditionalGeneration, Gemma3Processor, Gemma3ImageProcessor")
    tok = tiny.tokenizer(bundle.folder, SPECIALS)
    vocab = tok.get_vocab_size()
    images = Gemma3ImageProcessor(size={"height": SIDE, "width": SIDE})
    named = {"boi_token": "<start_of_image>", "eoi_token": "<end_of_image>", "image_token": "<image_soft_token>"}
    hugging = tiny.fast(tok, GemmaTokenizerFast, extra_special_tokens=named)
    processor = Gemma3Processor(image_processor=images, tokenizer=hugging, image_seq_length=TOKENS)
    grays = tiny.pictures([(60, 48), (40, 64)])

    def pixels(gray):
        return tiny.normalised(tiny.resized(gray, SIDE, SIDE, Image.Resampling.BILINEAR), images.image_mean, images.image_std)

    def golden(seed):
        model = Gemma3ForConditionalGeneration(Gemma3Config(
            text_config=Gemma3TextConfig(
                vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=64, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                num_key_value_heads=KV, head_dim=DIM, query_pre_attn_scalar=12, sliding_window=WINDOW, max_position_embeddings=256,
                layer_types=["sliding_attention", "full_attention", "sliding_attention"], rope_theta=1_000_000.0,
                rope_local_base_freq=10_000.0, rope_scaling={"rope_type": "linear", "factor": 8.0}, tie_word_embeddings=False),
            vision_config=SiglipVisionConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2, image_size=SIDE,
                                             patch_size=PATCH, vision_use_head=False),
            mm_tokens_per_image=TOKENS, boi_token_index=tok.token_to_id("<start_of_image>"), eoi_token_index=tok.token_to_id("<end_of_image>"),
            image_token_index=tok.token_to_id("<image_soft_token>"), attn_implementation="eager", tie_word_embeddings=False))
        tiny.scramble(model, seed, {"lm_head": 3, "embed_tokens": 0.15, "mm_input": 1.0})
        made = []
        for some, text in ((grays[:1], PROMPT), (grays[1:], PROMPT), (grays, TWICE)):
            inputs = processor(images=[[tiny.colour(g) for g in some]], text=[text], return_tensors="pt")
            values = torch.cat([pixels(g) for g in some])
            tiny.near(values, inputs.pixel_values, images.image_std)
            inputs["pixel_values"] = values
            greedy, logits = tiny.generated(model, **inputs)
            made.append((some, Vision(model)(values), inputs.input_ids[0].tolist(), logits, greedy, "<bos>" + text))
        return model, made

    model, made = tiny.search(golden)
    for entry in made:
        bundle.golden(*entry[:-1], prompt=entry[-1])
    parts = export(model, processor, bundle.store, tiny.LONGEST)
    bundle.finish(parts, "<bos>" + PROMPT, [pixels(g)[0] for g in tiny.pictures([(48, 48), (48, 48)], 11)])
    return model, processor


ONES = {"gemma3": make_gemma3}
