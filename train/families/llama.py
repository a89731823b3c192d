"""Models of text alone: transformers' LlamaForCausalLM."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from . import flat, gqa, tiny
from .parts import Parts, Store

#: What the manifest of a model of text says of images.
UNSEEN = {"width": 1, "height": 1, "channels": 1, "fit": "squash", "interpolation": "box", "mean": [0.5], "std": [0.5], "voi": "default"}

HIDDEN, LAYERS, HEADS, KV, DIM = 64, 2, 4, 1, 16
PROMPTS = ["<s>[INST] Describe the findings. [/INST]", "<s>[INST] Is there a pleural effusion? [/INST]"]


def export(model, processor, store: Store, longest: int) -> Parts:
    """The parts of a LlamaForCausalLM, MistralForCausalLM or Qwen2ForCausalLM."""
    shape = flat.llama_shape(model.config, longest)
    flat.llama(model.model, model.config, store, model.lm_head.weight)
    return Parts("llama", UNSEEN, {"input": "none"}, shape, {"splice": "replace_sentinel"}, tensors=(gqa.llama(model.model, model.lm_head.weight), model.config.rms_norm_eps))


def make_llama(target: Path):
    bundle = tiny.Bundle(target, "llama", "transformers 4.57.1 LlamaForCausalLM", apart=True)
    tok = tiny.tokenizer(bundle.folder, ["<|endoftext|>", "<s>", "</s>"])
    vocab = tok.get_vocab_size()

    def golden(seed):
        model = LlamaForCausalLM(LlamaConfig(
            vocab_size=vocab, hidden_size=HIDDEN, intermediate_size=96, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            num_key_value_heads=KV, head_dim=DIM, rope_theta=10000.0, max_position_embeddings=256, tie_word_embeddings=False,
            attn_implementation="eager"))
        tiny.scramble(model, seed, {"lm_head": 3, "q_proj": 2, "k_proj": 2})
        made = []
        for prompt in PROMPTS:
            ids = tok.encode(prompt).ids
            greedy, logits = tiny.generated(model, input_ids=torch.tensor([ids]), attention_mask=torch.ones(1, len(ids), dtype=torch.long))
            made.append((None, None, ids, logits, greedy))
        return model, made

    model, made = tiny.search(golden)
    for prompt, entry in zip(PROMPTS, made):
        bundle.golden(*entry, prompt=prompt)
    bundle.finish(export(model, None, bundle.store, tiny.LONGEST), PROMPTS[0])
    return model, tiny.fast(tok)


ONES = {"llama": make_llama}
