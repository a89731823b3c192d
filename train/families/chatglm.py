"""VisualGLM / ChatGLM-6B: modeling_chatglm.py as it is published with visualglm-6b, and blip2.py of VisualGLM, its image encoder and Q-Former (never
committed here; github.com/samfunmula/visualGLM at 81641348 holds both). blip2.py needs SwissArmyTransformer 0.4.3, which is installed by hand (pip --no-deps)."""

from __future__ import annotations

import math
import types
from pathlib import Path

import numpy as np
import torch
from transformers import BlipImageProcessor, PretrainedConfig

from . import flat, tiny
from .parts import Parts, Store, batched

SIDE, PATCH, WIDTH, QUERIES, HIDDEN, LAYERS, HEADS, DIM = 32, 8, 24, 32, 64, 2, 4, 16
SPECIALS = ["<|endoftext|>", "<unk>", "[MASK]", "[gMASK]", "<sop>", "<eop>"]
PROMPT = "<img>IMAGE</img>Question: Describe the findings.\nAnswer:[gMASK]<sop>"
FILES = {"modeling_chatglm.py": "da5bd3b100fb1e4a42661201bfe10357aa0f9a6c5ca85873f1c41364ac4b0b07"}


class Config(PretrainedConfig):
    model_type = "chatglm"


def eyes_of(blip2) -> torch.nn.Module:
    """VisualGLM's BLIP2 (blip2.py) of small size. The numbers that visualglm-6b's configuration has, but for the sizes; the file has 32 queries."""
    if not torch.distributed.is_initialized():  # the package would ask for a GPU's
        torch.distributed.init_process_group("gloo", rank=0, world_size=1, store=torch.distributed.HashStore())
    shared = {"num_layers": 2, "hidden_size": WIDTH, "num_attention_heads": 2, "model_parallel_size": 1}
    eyes = blip2.BLIP2(
        shared | {"vocab_size": 1, "layernorm_order": "pre", "max_sequence_length": (SIDE // PATCH) ** 2 + 1, "inner_hidden_size": 48, "use_final_layernorm": False,
                  "layernorm_epsilon": 1e-6, "image_size": [SIDE, SIDE], "pre_len": 1, "post_len": 0, "in_channels": 3, "num_classes": 0, "patch_size": PATCH},
        shared | {"vocab_size": QUERIES, "layernorm_order": "post", "max_sequence_length": 0, "is_decoder": [True, False], "cross_attn_hidden_size": WIDTH,
                  "layernorm_epsilon": 1e-12})
    eyes.glm_proj = torch.nn.Linear(WIDTH, HIDDEN)  # of 768 to 4096 in the file
    return eyes


class Vision(torch.nn.Module):
    def __init__(self, eyes):
        super().__init__()
        self.vit = eyes.vit

    def forward(self, pixel_values):
        return self.vit(pixel_values)[0]


class Adapter(torch.nn.Module):
    def __init__(self, eyes):
        super().__init__()
        self.qformer, self.glm_proj = eyes.qformer, eyes.glm_proj

    def forward(self, image_features):
        return self.glm_proj(self.qformer(image_features)[0])


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
    blip2, = tiny.outside("visualglm", {"blip2.py": "c83cfdf469fb2915e3cf1e5e099c2754bfa0a337939ddf63bdb914ad5467c9ce"})
    bundle = tiny.Bundle(target, "chatglm", "modeling_chatglm.py of visualglm-6b; BLIP2 of VisualGLM's blip2.py with SwissArmyTransformer 0.4.3")
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
        eyes = eyes_of(blip2)
        tiny.scramble(model, seed, {"lm_head": 3, "query_key_value": 2, "attention.dense": 2})
        tiny.scramble(eyes, seed + 1000, {"glm_proj": 3, "vit": 1.8, "cross_attention": 2})
        made = []
        for gray in grays:
            tiny.near(pixels(gray), images(tiny.colour(gray), return_tensors="pt").pixel_values, images.image_std)
            before, after = (tok.encode(part).ids for part in PROMPT.split("IMAGE"))
            ids = before + [tok.token_to_id("<unk>")] * QUERIES + after
            features = Vision(eyes)(pixels(gray))
            words = model.transformer.word_embeddings
            embeds = torch.cat([words(torch.tensor([before])), eyes(pixels(gray)), words(torch.tensor([after]))], 1)
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
