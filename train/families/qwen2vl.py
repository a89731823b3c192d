"""Qwen2-VL and Qwen2.5-VL: transformers' classes of these names. The vision graph takes each patch's row and column,
and for Qwen2.5-VL the window that it is in, so that it runs at any size; golden values are the reference's own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from transformers import (Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor, Qwen2VLConfig,
                          Qwen2TokenizerFast, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor, Qwen2VLProcessor, Qwen2VLVideoProcessor)
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize
from transformers.models.qwen2_vl.modeling_qwen2_vl import apply_rotary_pos_emb_vision

from . import flat, tiny
from .parts import INTERPOLATIONS, Parts, Store, Unsupported, spelled

PATCH, MERGE, WIDTH, HIDDEN, LAYERS, HEADS, KV, DIM = 4, 2, 32, 64, 2, 4, 2, 16
UNIT, PATCH_DIM, LEAST, MOST, USUAL = PATCH * MERGE, 3 * 2 * PATCH * PATCH, 32 * 32, 64 * 64, 48
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"]
PROMPT = ("<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>Describe the findings.<|im_end|>\n"
          "<|im_start|>assistant\n")
TWICE = PROMPT.replace("<|vision_end|>", "<|vision_end|> and <|vision_start|><|image_pad|><|vision_end|>")


class Vision(torch.nn.Module):
    """The reference's own modules, with the attention over windows as a mask."""

    def __init__(self, model, full: list[int] | None, width: int):
        super().__init__()
        self.visual, self.full, self.width = model.model.visual.float(), full, width

    def forward(self, patches, at, window=None):
        x = self.visual.patch_embed(patches)
        angles = (at[:, :, None].float() * self.visual.rotary_pos_emb.inv_freq).flatten(1)
        angles = torch.cat([angles, angles], -1)
        cos, sin = angles.cos(), angles.sin()
        for i, block in enumerate(self.visual.blocks):
            a, normed = block.attn, block.norm1(x)
            q, k, v = a.qkv(normed).reshape(-1, 3, a.num_heads, self.width // a.num_heads).permute(1, 0, 2, 3).unbind(0)
            q, k = apply_rotary_pos_emb_vision(q, k, cos, sin)
            scores = torch.einsum("qhd,khd->hqk", q, k) * a.scaling
            if self.full is not None and i not in self.full:
                scores = scores.masked_fill(window[:, None] != window[None], float("-inf"))
            x = x + a.proj(torch.einsum("hqk,khd->qhd", scores.softmax(-1), v).flatten(1))
            x = x + block.mlp(block.norm2(x))
        return x[None]


class Merger(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.merger = model.model.visual.merger

    def forward(self, image_features):
        return self.merger(image_features[0])[None]


def features(model, values, grid) -> torch.Tensor:
    """What the reference's merger gets, in the order of the patches."""
    caught, visual = [], model.model.visual
    hook = visual.merger.register_forward_pre_hook(lambda module, inputs: caught.append(inputs[0]))
    visual(values, grid)
    hook.remove()
    x = caught[0]
    if hasattr(visual, "get_window_index"):
        order = torch.argsort(visual.get_window_index(grid)[0])
        x = x.reshape(len(order), -1)[order].reshape(x.shape)
    return x


def export(model, processor, store: Store, longest: int, usual: int = 448) -> Parts:
    """The parts of a Qwen2VLForConditionalGeneration or Qwen2_5_VLForConditionalGeneration. ``usual`` is the side in pixels of decoys and of the
    blank image. Images have at most half of ``longest`` tokens."""
    config, images, text = model.config.vision_config, processor.image_processor, model.config.text_config
    shape = flat.llama_shape(text, longest)
    patch, merge, windowed = config.patch_size, config.spatial_merge_size, hasattr(config, "window_size")
    unit, width = patch * merge, config.hidden_size if windowed else config.embed_dim
    dim = 3 * config.temporal_patch_size * patch * patch
    if (images.patch_size, images.merge_size, images.temporal_patch_size) != (patch, merge, config.temporal_patch_size):
        raise Unsupported("the image processor cuts other patches than the model takes")
    size = dict(images.size or {})
    least, most = getattr(images, "min_pixels", None) or size["shortest_edge"], getattr(images, "max_pixels", None) or size["longest_edge"]
    most = min(most, longest // 2 * unit * unit)
    usual = min(usual, int(most ** 0.5)) // unit * unit
    count, window = (usual // patch) ** 2, config.window_size // unit if windowed else 0
    row = torch.arange(count)
    names, examples = ["patches", "at"], (torch.randn(count, dim, generator=torch.Generator().manual_seed(1)), torch.stack([row // (usual // patch), row % (usual // patch)], -1))
    if windowed:
        names, examples = names + ["window"], examples + (row // (window * merge) ** 2,)
    store.exported(Vision(model, config.fullatt_block_indexes if windowed else None, width), examples, names, ["image_features"], "vision.onnx",
                   {n: {0: "P"} for n in names} | {"image_features": {1: "P"}})
    store.exported(Merger(model), (torch.zeros(1, 16 * merge ** 2, width),), ["image_features"], ["image_embeds"], "adapter.onnx",
                   {"image_features": {1: "P"}, "image_embeds": {1: "T"}})
    flat.llama(model.model.language_model, text, store, model.lm_head.weight)

    def seen(tensor):
        made = images(images=[np.moveaxis(tensor, 0, -1)], do_resize=False, do_rescale=False, do_normalize=False, input_data_format="channels_last", return_tensors="pt")
        with torch.no_grad():
            return features(model, made.pixel_values, made.image_grid_thw).numpy()

    pad = spelled(processor.tokenizer, model.config.image_token_id)
    return Parts(
        "qwen2vl",
        {"width": usual, "height": usual, "channels": 3, "fit": "area", "interpolation": INTERPOLATIONS[int(images.resample)], "mean": list(images.image_mean),
         "std": list(images.image_std), "voi": "default", "patch": patch, "merge": merge, "min_pixels": least, "max_pixels": most},
        {"input": "patches", "patch_dim": dim, "window": window, "feature_tokens": count, "feature_dim": width, "image_tokens": count // merge ** 2},
        shape | {"positions": "mrope-3d", "rope_sections": list(text.rope_scaling["mrope_section"])},
        {"splice": "overwrite_pads", "sentinel": pad, "image_token": pad}, seen,
        {} if windowed else {"boxes": {"syntax": "qwen2", "range": 999}})


def make_one(target: Path, name: str, config_class, model_class, processor_class, vision: dict):
    bundle = tiny.Bundle(target, name, f"transformers 4.57.1 {model_class.__name__}, {processor_class.__name__}, Qwen2VLImageProcessor")
    tok = tiny.tokenizer(bundle.folder, SPECIALS)
    vocab = tok.get_vocab_size()
    special = {f"{key}_token_id": tok.token_to_id(f"<|{token}|>") for key, token in (
        ("image", "image_pad"), ("video", "video_pad"), ("vision_start", "vision_start"), ("vision_end", "vision_end"))}
    images = Qwen2VLImageProcessor(patch_size=PATCH, merge_size=MERGE, temporal_patch_size=2, min_pixels=LEAST, max_pixels=MOST)
    processor = processor_class(image_processor=images, tokenizer=tiny.fast(tok, Qwen2TokenizerFast), video_processor=Qwen2VLVideoProcessor())

    def pixels(gray):
        """Patches in the reference's order, of a picture resampled in float."""
        height, width = smart_resize(*gray.shape, factor=UNIT, min_pixels=LEAST, max_pixels=MOST)
        picture = tiny.resized(gray, width, height)
        made = images(images=[np.stack([picture] * 3, -1)], do_resize=False, do_rescale=False, input_data_format="channels_last", return_tensors="pt")
        return made.pixel_values, made.image_grid_thw

    grays = tiny.pictures([(60, 48), (120, 90), (33, 40)])

    def golden(seed):
        model = model_class(config_class(
            text_config=dict(vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
                             num_key_value_heads=KV, max_position_embeddings=256, rope_theta=10000.0, tie_word_embeddings=False,
                             rope_scaling={"type": "mrope", "mrope_section": [2, 3, 3]}),
            vision_config=dict(depth=3, num_heads=2, patch_size=PATCH, spatial_merge_size=MERGE, temporal_patch_size=2, in_channels=3, **vision),
            attn_implementation="eager", tie_word_embeddings=False, **special))
        tiny.scramble(model, seed, {"lm_head": 3, "q_proj": 2, "k_proj": 2, "qkv": 1.5})
        made = []
        for some, text in ((grays[:1], PROMPT), (grays[1:2], PROMPT), (grays[:1] + grays[2:], TWICE)):
            inputs = processor(images=[tiny.colour(g) for g in some], text=[text], return_tensors="pt")
            parts = [pixels(g) for g in some]
            values = torch.cat([v for v, _ in parts])
            tiny.near(values, inputs.pixel_values, images.image_std)
            inputs["pixel_values"] = values
            greedy, logits = tiny.generated(model, **inputs)
            seen = torch.cat([features(model, *part) for part in parts])
            made.append((some, seen, inputs.input_ids[0].tolist(), logits, greedy, text))
        return model, made

    model, made = tiny.search(golden)
    for entry in made:
        bundle.golden(*entry[:-1], prompt=entry[-1])
    parts = export(model, processor, bundle.store, tiny.LONGEST, USUAL)
    parts.more = {}  # these write no boxes
    bundle.finish(parts, PROMPT, [tiny.normalised(tiny.resized(g, USUAL, USUAL), images.image_mean, images.image_std)[0].numpy() for g in tiny.pictures([(USUAL, USUAL)] * 2, 11)])
    return model, processor


def make_qwen2vl(target: Path):
    return make_one(target, "qwen2vl", Qwen2VLConfig, Qwen2VLForConditionalGeneration, Qwen2VLProcessor,
                    {"embed_dim": WIDTH, "hidden_size": HIDDEN, "mlp_ratio": 2})


def make_qwen25vl(target: Path):
    return make_one(target, "qwen25vl", Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor,
                    {"hidden_size": WIDTH, "out_hidden_size": HIDDEN, "intermediate_size": 48, "window_size": 16, "fullatt_block_indexes": [1]})


ONES = {"qwen2vl": make_qwen2vl, "qwen25vl": make_qwen25vl}
