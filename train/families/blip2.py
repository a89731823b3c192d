"""BLIP-2 with OPT, and MiniGPT-4's shape: transformers' Blip2ForConditionalGeneration, once with OPT and once with Llama."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import (Blip2Config, Blip2ForConditionalGeneration, Blip2Processor, Blip2QFormerConfig, Blip2VisionConfig,
                          BlipImageProcessor, LlamaConfig, OPTConfig)

from . import flat, tiny
from .parts import Parts, Store, Unsupported, batched, spelled, still

SIDE, PATCH, WIDTH, QUERIES, HIDDEN, LAYERS, HEADS, DIM = 32, 8, 24, 8, 64, 2, 4, 16
FEATURES = (SIDE // PATCH) ** 2 + 1


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
    """The parts of a Blip2ForConditionalGeneration with OPT. With Llama it is MiniGPT-4's shape; those prompts are the caller's."""
    preprocess, vision = still(processor.image_processor), Vision(model)
    size = (1, preprocess["channels"], preprocess["height"], preprocess["width"])
    store.exported(vision, (torch.zeros(*size),), ["pixel_values"], ["image_features"], "vision.onnx", {"pixel_values": {0: "B"}, "image_features": {0: "B"}})
    features = batched(vision)
    count, width = features(np.zeros(size[1:], np.float32)).shape
    store.exported(Adapter(model), (torch.zeros(1, count, width),), ["image_features"], ["image_embeds"], "adapter.onnx", {"image_features": {0: "B"}, "image_embeds": {0: "B"}})
    text, config = model.language_model, model.config.text_config
    seen = {"feature_tokens": count, "feature_dim": width, "image_tokens": model.config.num_query_tokens}
    token = spelled(processor.tokenizer, model.config.image_token_index)
    if config.model_type == "opt":
        opt(text, store, text.lm_head.weight)
        heads = config.num_attention_heads
        decoder = {"max_length": min(longest, config.max_position_embeddings), "layers": config.num_hidden_layers, "heads": heads, "kv_heads": heads,
                   "head_dim": config.hidden_size // heads, "hidden": config.hidden_size, "vocab": config.vocab_size, "positions": "absolute"}
        return Parts("blip2", preprocess, seen, decoder, {"splice": "prepend", "image_token": token}, features)
    flat.llama(text.model, config, store, text.lm_head.weight)
    return Parts("llava", preprocess, seen, flat.llama_shape(config, longest), {"splice": "replace_sentinel", "image_token": token}, features)


def make_one(target: Path, name: str, reference: str, specials: list[str], text_config, prompt: dict):
    bundle = tiny.Bundle(target, name, reference)
    tok = tiny.tokenizer(bundle.folder, specials)
    vocab = tok.get_vocab_size()
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    processor = Blip2Processor(images, tiny.fast(tok), num_query_tokens=QUERIES)
    grays = tiny.pictures([(60, 48), (40, 64)])

    def pixels(gray):
        return tiny.normalised(tiny.resized(gray, SIDE, SIDE), images.image_mean, images.image_std)

    def inputs_of(gray):
        text = prompt["template"]
        if prompt["splice"] == "prepend":
            inputs = processor(images=tiny.colour(gray), text=text, return_tensors="pt")
        else:  # as MiniGPT-4 does: the embeddings of the image between those of the texts before and after it
            inputs = processor(images=tiny.colour(gray), return_tensors="pt")
            before, after = (tok.encode(part).ids for part in text.split(prompt["sentinel"]))
            inputs["input_ids"] = torch.tensor([before + [tok.token_to_id("<image>")] * QUERIES + after])
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        tiny.near(pixels(gray), inputs["pixel_values"], images.image_std)
        inputs["pixel_values"] = pixels(gray)
        return inputs

    def golden(seed):
        model = Blip2ForConditionalGeneration(Blip2Config(
            vision_config=Blip2VisionConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                            image_size=SIDE, patch_size=PATCH).to_dict(),
            qformer_config=Blip2QFormerConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                              encoder_hidden_size=WIDTH, cross_attention_frequency=2, vocab_size=8).to_dict(),
            text_config=text_config(vocab).to_dict(), num_query_tokens=QUERIES, image_token_index=tok.token_to_id("<image>")))
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
    parts = export(model, processor, bundle.store, tiny.LONGEST)
    parts.prompt |= prompt
    bundle.finish(parts, prompt["template"], [pixels(g)[0] for g in tiny.pictures([(48, 48), (48, 48)], 11)])
    return model, processor


def make_blip2(target: Path):
    return make_one(target, "blip2", "transformers 4.57.1 Blip2ForConditionalGeneration with OPT, Blip2Processor, BlipImageProcessor",
             ["<|endoftext|>", "<pad>", "</s>", "<image>"],
             lambda vocab: OPTConfig(vocab_size=vocab, hidden_size=HIDDEN, ffn_dim=128, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                                     word_embed_proj_dim=HIDDEN, max_position_embeddings=256, tie_word_embeddings=False),
             {"splice": "prepend", "image_token": "<image>", "template": "</s>Question: Describe the findings. Answer:"})


def make_minigpt4(target: Path):
    return make_one(target, "minigpt4", "transformers 4.57.1 Blip2ForConditionalGeneration with Llama, BlipImageProcessor; prompt ids laid by train/families",
             ["<|endoftext|>", "<s>", "</s>", "<image>"],
             lambda vocab: LlamaConfig(vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS,
                                       num_attention_heads=HEADS, num_key_value_heads=HEADS, rope_theta=10000.0, max_position_embeddings=256,
                                       tie_word_embeddings=False),
             {"splice": "replace_sentinel", "sentinel": "<ImageHere>", "image_token": "<image>",
              "template": "<s>###Human: <Img><ImageHere></Img> Describe the findings.###Assistant:"})


ONES = {"blip2": make_blip2, "minigpt4": make_minigpt4}
