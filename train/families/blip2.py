"""BLIP-2 with OPT: transformers' Blip2ForConditionalGeneration."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import (Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, Blip2QFormerConfig, Blip2VisionConfig,
                          BlipImageProcessor, OPTConfig)

from . import flat, tiny
from .parts import Parts, Store, Unsupported, batched, spelled, still

SIDE, PATCH, WIDTH, QUERIES, HIDDEN, LAYERS, HEADS = 32, 8, 24, 8, 64, 2, 4
PROMPT = "</s>Question: Describe the findings. Answer:"


class Vision(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.vision = model.vision_model

    def forward(self, pixel_values):
        return self.vision(pixel_values=pixel_values).last_hidden_state


class Adapter(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.queries, self.qformer, self.projection = model.query_tokens, model.qformer, model.language_projection

    def forward(self, image_features):
        queries = self.queries.expand(image_features.shape[0], -1, -1)
        return self.projection(self.qformer(query_embeds=queries, encoder_hidden_states=image_features).last_hidden_state)


def opt(model, store: Store, head) -> None:
    decoder, config = model.model.decoder, model.config
    heads = config.num_attention_heads
    if config.activation_function != "relu" or not config.do_layer_norm_before or config.word_embed_proj_dim != config.hidden_size:
        raise Unsupported("an OPT with another activation than ReLU, norms after its blocks or projected embeddings")
    graph = flat.Flat(store, config.hidden_size, heads, heads, config.hidden_size // heads, 0)
    table = flat.numbers(decoder.embed_positions.weight)[decoder.embed_positions.offset:]
    places = graph.add("Gather", [graph.constant("learned", table), "positions"], "learned_rows")
    x = graph.add("Add", ["inputs_embeds", places], "placed")

    def norm(module):
        return flat.LAYER_NORM, module.eps, flat.numbers(module.weight), flat.numbers(module.bias)

    def product(module, x, **named):
        return graph.linear(x, flat.numbers(module.weight), bias=flat.numbers(module.bias), **named)

    for i, layer in enumerate(decoder.layers):
        a = layer.self_attn
        parts = (a.q_proj, a.k_proj, a.v_proj)
        qkv = graph.linear(x, np.concatenate([flat.numbers(p.weight) for p in parts]), norm=norm(layer.self_attn_layer_norm),
                           bias=np.concatenate([flat.numbers(p.bias) for p in parts]))
        x = product(a.out_proj, graph.attention(qkv, i, turns=()), residual=x)
        x = product(layer.fc2, product(layer.fc1, x, norm=norm(layer.final_layer_norm)), residual=x, before=flat.RELU)
    graph.head(x, flat.numbers(head), norm=norm(decoder.final_layer_norm))
    graph.save("decoder", store.folder / "decoder.onnx")
    flat.embed_graph(flat.numbers(decoder.embed_tokens.weight), store)


def export(model, processor, store: Store, longest: int) -> Parts:
    """The parts of a Blip2ForConditionalGeneration with OPT."""
    text, config = model.language_model, model.config.text_config
    if config.model_type != "opt":
        raise Unsupported(f"BLIP-2 with a language model of the type {config.model_type}")
    preprocess, vision = still(processor.image_processor), Vision(model)
    size = (1, preprocess["channels"], preprocess["height"], preprocess["width"])
    store.exported(vision, (torch.zeros(*size),), ["pixel_values"], ["image_features"], "vision.onnx", {"pixel_values": {0: "B"}, "image_features": {0: "B"}})
    features = batched(vision)
    count, width = features(np.zeros(size[1:], np.float32)).shape
    store.exported(Adapter(model), (torch.zeros(1, count, width),), ["image_features"], ["image_embeds"], "adapter.onnx", {"image_features": {0: "B"}, "image_embeds": {0: "B"}})
    seen = {"feature_tokens": count, "feature_dim": width, "image_tokens": model.config.num_query_tokens}
    token = spelled(processor.tokenizer, model.config.image_token_index)
    opt(text, store, text.lm_head.weight)
    heads = config.num_attention_heads
    decoder = {"max_length": min(longest, config.max_position_embeddings), "layers": config.num_hidden_layers, "heads": heads, "kv_heads": heads,
               "head_dim": config.hidden_size // heads, "hidden": config.hidden_size, "vocab": config.vocab_size, "positions": "absolute"}
    return Parts("blip2", preprocess, seen, decoder, {"splice": "prepend", "image_token": token}, features)


def make_blip2(target: Path):
    bundle = tiny.Bundle(target, "blip2", "transformers 4.57.1 Blip2ForConditionalGeneration with OPT, Blip2Processor, BlipImageProcessor")
    tok = tiny.tokenizer(bundle.folder, ["<|endoftext|>", "<pad>", "</s>", "<image>"])
    vocab = tok.get_vocab_size()
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = Blip2Processor(images, tiny.fast(tok), num_query_tokens=QUERIES)
    grays = tiny.pictures([(60, 48), (40, 64)])

    def pixels(gray):
        return tiny.normalised(tiny.resized(gray, SIDE, SIDE), images.image_mean, images.image_std)

    def inputs_of(gray):
        inputs = processor(images=tiny.colour(gray), text=PROMPT, return_tensors="pt")
        tiny.near(pixels(gray), inputs["pixel_values"], images.image_std)
        inputs["pixel_values"] = pixels(gray)
        return inputs

    def golden(seed):
        model = Blip2ForConditionalGeneration(Blip2Config(
            vision_config=Blip2VisionConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                            image_size=SIDE, patch_size=PATCH).to_dict(),
            qformer_config=Blip2QFormerConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                              encoder_hidden_size=WIDTH, cross_attention_frequency=2, vocab_size=8).to_dict(),
            text_config=OPTConfig(vocab_size=vocab, hidden_size=HIDDEN, ffn_dim=128, num_hidden_layers=LAYERS, num_attention_heads=HEADS, word_embed_proj_dim=HIDDEN,
                                  max_position_embeddings=256, tie_word_embeddings=False).to_dict(), num_query_tokens=QUERIES, image_token_index=tok.token_to_id("<image>")))
        model.set_attn_implementation("eager")
        tiny.scramble(model, seed, {"lm_head": 3, "q_proj": 2, "k_proj": 2, "embed_positions": 1.5, "language_projection": 4, "self_attn.out_proj": 2, "vision_model": 1.6})
        made = []
        for gray in grays:
            inputs = inputs_of(gray)
            greedy, logits = tiny.generated(model, **inputs)
            made.append((gray, Vision(model)(pixels(gray)), inputs["input_ids"][0].tolist(), logits, greedy))
        return model, made

    model, made = tiny.search(golden)
    for entry in made:
        bundle.golden(*entry)
    bundle.finish(export(model, processor, bundle.store, tiny.LONGEST), PROMPT, [pixels(g)[0] for g in tiny.pictures([(48, 48), (48, 48)], 11)])
    return model, processor


ONES = {"blip2": make_blip2}
