"""The reader: image features to image tokens, and the prompt around them."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from .language import Language
from .settings import END, GRID, SENTINEL, TEMPLATE, WIDTH

POOLED = 5                           # the patch grid is averaged to POOLED x POOLED
IMAGE_TOKENS = 2 + POOLED * POOLED   # the summary, the mean, the pooled grid


class Adapter(nn.Module):
    """``image_features`` [B, N, WIDTH] to ``image_embeds`` [B, IMAGE_TOKENS, hidden]. It sees the
    features and nothing else."""

    def __init__(self, hidden: int = 576, size: float = 0.1):
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, hidden), nn.Linear(hidden, hidden)
        self.slot = nn.Parameter(torch.randn(IMAGE_TOKENS, hidden) * 0.1)
        self.gain = nn.Parameter(torch.full((hidden,), size))

    def forward(self, features: Tensor) -> Tensor:
        step = GRID // POOLED
        patches = features[:, 1:]
        grid = patches.reshape(-1, POOLED, step, POOLED, step, WIDTH).mean((2, 4))
        tokens = torch.cat([features[:, :1], patches.mean(1, keepdim=True),
                            grid.reshape(-1, POOLED * POOLED, WIDTH)], 1)
        y = self.down(F.gelu(self.up(tokens))) + self.slot
        return y * torch.rsqrt(y.square().mean(-1, keepdim=True) + 1e-6) * self.gain


class Prompt:
    """Ids before and after the image tokens. The two sides are tokenised apart, as serving does."""

    def __init__(self, tokenizer: Path):
        self.tokenizer = Tokenizer.from_file(str(tokenizer))
        before, after = TEMPLATE.split(SENTINEL)
        self.before, self.after = self.encode(before), self.encode(after)
        self.end = self.tokenizer.token_to_id(END)

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def answer(self, report: str) -> list[int]:
        return self.encode(report) + [self.end]

    def decode(self, ids: list[int]) -> str:
        return self.tokenizer.decode(ids, skip_special_tokens=True)

    def embed(self, language: Language, image: Tensor) -> Tensor:
        """[B, before + image + after, hidden]"""
        def side(ids: list[int]) -> Tensor:
            return language.embed(torch.tensor(ids)).expand(len(image), -1, -1)

        return torch.cat([side(self.before), image, side(self.after)], 1)


@torch.inference_mode()
def greedy(language: Language, prompt: Prompt, image: Tensor, most: int = 160) -> list[list[int]]:
    """Greedy answers for a batch of image tokens; all prompts have one length."""
    hidden, cache = language(prompt.embed(language, image))
    following = language.logits(hidden[:, -1]).argmax(-1)
    answers: list[list[int]] = [[] for _ in range(len(image))]
    running = torch.ones(len(image), dtype=torch.bool)
    for _ in range(most):
        running &= following != prompt.end
        if not running.any():
            break
        for answer, token, on in zip(answers, following.tolist(), running.tolist()):
            if on:
                answer.append(token)
        hidden, cache = language(language.embed(following[:, None]), cache)
        following = language.logits(hidden[:, -1]).argmax(-1)
    return answers
