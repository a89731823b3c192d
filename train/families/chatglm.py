"""VisualGLM / ChatGLM-6B: modeling_chatglm.py as it is published with visualglm-6b (never committed here;
github.com/samfunmula/visualGLM at 81641348 holds it). Its image encoder needs SwissArmyTransformer; here it is
transformers' BLIP-2 encoder and Q-Former, of the same kind, whose embeddings go in as the file's own class puts them."""

from __future__ import annotations

import math
import types
from pathlib import Path

import numpy as np
import torch
from transformers import (Blip2QFormerConfig, Blip2QFormerModel, Blip2VisionConfig, Blip2VisionModel, BlipImageProcessor, PretrainedConfig)

from . import flat, tiny
from .parts import Parts, Store, batched

SIDE, PATCH, WIDTH, QUERIES, HIDDEN, LAYERS, HEADS, DIM = 32, 8, 24, 8, 64, 2, 4, 16
SPECIALS = ["<|endoftext|>", "<unk>", "[MASK]", "[gMASK]", "<sop>", "<eop>"]
PROMPT = "<img>IMAGE</img>Question: Describe the findings.\nAnswer:[gMASK]<sop>"
FILES = {"modeling_chatglm.py": "da5bd3b100fb1e4a42661201bfe10357aa0f9a6c5ca85873f1c41364ac4b0b07"}


class Config(PretrainedConfig):
    model_type = "chatglm"


class Eyes(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.vision = Blip2VisionModel(Blip2VisionConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                                         image_size=SIDE, patch_size=PATCH, attn_implementation="eager"))
        self.qformer = Blip2QFormerModel(Blip2QFormerConfig(hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=2, num_attention_heads=2,
                                                            encoder_hidden_size=WIDTH, cross_attention_frequency=2, vocab_size=8,
                                                            attn_implementation="eager"))
        self.query_tokens = torch.nn.Parameter(torch.zeros(1, QUERIES, WIDTH))
        self.projection = torch.nn.Linear(WIDTH, HIDDEN)


class Vision(torch.nn.Module):
    def __init__(self, eyes):
        super().__init__()
        self.eyes = eyes

    def forward(self, pixel_values):
        return self.eyes.vision(pixel_values=pixel_values).last_hidden_state


class Adapter(torch.nn.Module):
    def __init__(self, eyes):
        super().__init__()
        self.eyes = eyes

    def forward(self, image_features):
        queries = self.eyes.query_tokens.expand(image_features.shape[0], -1, -1)
        return self.eyes.projection(self.eyes.qformer(query_embeds=queries, encoder_hidden_states=image_features).last_hidden_state)


def language(model, config, store: Store, head) -> None:
    graph = flat.Flat(store, HIDDEN, HEADS, HEADS, DIM, DIM)
    alpha = graph.constant("alpha", np.float32(math.sqrt(2 * model.layers[0].num_layers)))  # 28 in every model of this file
    x = "inputs_embeds"

    def normed(module, x):
        return graph.add("LayerNormalization", [x, graph.vector(flat.numbers(module.weight)), graph.vector(flat.numbers(module.bias))],
                         graph.name("normed"), axis=-1, epsilon=float(module.eps))

    def residual(x):  # the normed stream, not the stream itself
        return graph.add("Mul", [x, alpha], graph.name("kept"))

    # A head's halves turn by themselves, each by its own position; the operator turns half a head against the other.
    quarter = DIM // 4
    order = np.concatenate([np.arange(DIM).reshape(4, quarter)[q] for q in (0, 2, 1, 3)])

    for i, layer in enumerate(model.layers):
        a, m = layer.attention, layer.mlp

        def apart(value):  # a head's query, key and value stand together
            parts = flat.numbers(value).reshape(HEADS, 3, DIM, -1).swapaxes(0, 1).copy()
            parts[:2] = parts[:2, :, order]
            return parts.reshape(3 * HIDDEN, -1)

        inner = normed(layer.input_layernorm, x)
        qkv = graph.linear(inner, apart(a.query_key_value.weight), bias=apart(a.query_key_value.bias)[:, 0])
        x = graph.linear(graph.attention(qkv, i), flat.numbers(a.dense.weight), bias=flat.numbers(a.dense.bias), residual=residual(inner))
        inner = normed(layer.post_attention_layernorm, x)
        wide = graph.linear(inner, flat.numbers(m.dense_h_to_4h.weight), bias=flat.numbers(m.dense_h_to_4h.bias))
        x = graph.linear(wide, flat.numbers(m.dense_4h_to_h.weight), bias=flat.numbers(m.dense_4h_to_h.bias), residual=residual(inner),
                         before=flat.GELU_TANH)
    last = model.final_layernorm
    graph.head(x, flat.numbers(head), norm=(flat.LAYER_NORM, last.eps, flat.numbers(last.weight), flat.numbers(last.bias)))
    graph.save("decoder", store.folder / "decoder.onnx")
    flat.embed_graph(flat.numbers(model.word_embeddings.weight), store)


def make_chatglm(target: Path):
    configuration = types.ModuleType("configuration_chatglm")
    configuration.ChatGLMConfig = Config
    modeling, = tiny.outside("chatglm", FILES, {"configuration_chatglm": configuration})
    bundle = tiny.Bundle(target, "chatglm", "modeling_chatglm.py of visualglm-6b; image encoder of transformers 4.57.1 BLIP-2")
    tok = tiny.tokenizer(bundle.folder, SPECIALS)
    vocab = tok.get_vocab_size()
    images = BlipImageProcessor(size={"height": SIDE, "width": SIDE})
    grays = tiny.pictures([(60, 48), (40, 64)])

    def pixels(gray):
        return tiny.normalised(tiny.resized(gray, SIDE, SIDE), images.image_mean, images.image_std)

    def golden(seed):
        model = modeling.ChatGLMForConditionalGeneration(Config(
            vocab_size=vocab, hidden_size=HIDDEN, num_layers=LAYERS, num_attention_heads=HEADS, inner_hidden_size=128, layernorm_epsilon=1e-5,
            max_sequence_length=256, position_encoding_2d=True, pre_seq_len=None, prefix_projection=False, quantization_bit=0,
            bos_token_id=tok.token_to_id("<sop>"), mask_token_id=tok.token_to_id("[MASK]"), gmask_token_id=tok.token_to_id("[gMASK]"),
            use_cache=True), empty_init=False).float()
        eyes = Eyes()
        tiny.scramble(model, seed, {"lm_head": 3, "query_key_value": 2, "attention.dense": 2})
        tiny.scramble(eyes, seed + 1000, {"projection": 1.5, "vision": 1.6})
        made = []
        for gray in grays:
            tiny.near(pixels(gray), images(tiny.colour(gray), return_tensors="pt").pixel_values, images.image_std)
            before, after = (tok.encode(part).ids for part in PROMPT.split("IMAGE"))
            ids = before + [tok.token_to_id("<unk>")] * QUERIES + after
            features = Vision(eyes)(pixels(gray))
            words = model.transformer.word_embeddings
            embeds = torch.cat([words(torch.tensor([before])), Adapter(eyes)(features), words(torch.tensor([after]))], 1)
            state = {}

            def forward(fed, everything, past):
                if past is None:
                    state["position_ids"] = model.get_position_ids(torch.tensor([fed]), "cpu")
                    out = model(input_ids=torch.tensor([fed]), inputs_embeds=embeds, use_cache=True, return_dict=True)
                else:  # as _update_model_kwargs_for_generation goes on
                    state["position_ids"] = state["position_ids"][..., -1:].clone()
                    state["position_ids"][:, 1, :] += 1
                    out = model(input_ids=torch.tensor([fed]), position_ids=state["position_ids"], past_key_values=past, use_cache=True,
                                return_dict=True)
                return out.logits[0], out.past_key_values

            greedy, logits = tiny.stepped(forward, ids)
            made.append((gray, features, ids, logits, greedy))
        return model, eyes, made

    model, eyes, made = tiny.search(golden)
    for entry in made:
        bundle.golden(*entry)
    tokens = (SIDE // PATCH) ** 2 + 1
    bundle.store.exported(Vision(eyes), (torch.zeros(1, 3, SIDE, SIDE),), ["pixel_values"], ["image_features"], "vision.onnx",
                          {"pixel_values": {0: "B"}, "image_features": {0: "B"}})
    bundle.store.exported(Adapter(eyes), (torch.zeros(1, tokens, WIDTH),), ["image_features"], ["image_embeds"], "adapter.onnx",
                          {"image_features": {0: "B"}, "image_embeds": {0: "B"}})
    language(model.transformer, model.config, bundle.store, model.lm_head.weight)
    parts = Parts(
        "chatglm", {"width": SIDE, "height": SIDE, "channels": 3, "fit": "squash", "interpolation": "bicubic", "mean": images.image_mean, "std": images.image_std, "voi": "default"},
        {"feature_tokens": tokens, "feature_dim": WIDTH, "image_tokens": QUERIES},
        {"max_length": tiny.LONGEST, "layers": LAYERS, "heads": HEADS, "kv_heads": HEADS, "head_dim": DIM, "hidden": HIDDEN, "vocab": vocab, "rope_theta": 10000.0,
         "positions": "glm-2d", "mask": "prefix"},
        {"splice": "overwrite_pads", "sentinel": "IMAGE", "image_token": "<unk>"}, batched(Vision(eyes)))
    bundle.finish(parts, PROMPT, [pixels(g)[0] for g in tiny.pictures([(48, 48), (48, 48)], 11)])


ONES = {"chatglm": make_chatglm}
