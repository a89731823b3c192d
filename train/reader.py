"""The reader: image features to image tokens, and the prompt around them."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor, nn

from .language import Language
from .settings import END, GRID, SENTINEL, TEMPLATE, WIDTH

GLOBAL = 13                # tokens made of the whole image: the summary and the mean patch
QUARTERS = 2               # and QUARTERS x QUARTERS tokens of its parts
IMAGE_TOKENS = GLOBAL + QUARTERS * QUARTERS


class Adapter(nn.Module):
    """``image_features`` [B, N, WIDTH] to ``image_embeds`` [B, IMAGE_TOKENS, hidden]. It sees the
    features and nothing else. Global tokens share one hidden layer, each behind its own gate."""

    def __init__(self, hidden: int = 576, size: float = 0.136):  # the spread of the token embeddings
        super().__init__()
        # What films have in common is taken out and the rest brought to unit spread.
        parts = 2 + QUARTERS * QUARTERS
        self.register_buffer("center", torch.zeros(parts, WIDTH))
        self.register_buffer("inverse", torch.ones(parts, WIDTH))
        self.whole, self.part = nn.Linear(2 * WIDTH, hidden), nn.Linear(WIDTH, hidden)
        self.gate = nn.Parameter(torch.randn(GLOBAL, hidden))
        self.down = nn.Linear(hidden, hidden, bias=False)
        self.slot = nn.Parameter(torch.randn(IMAGE_TOKENS, hidden) * 0.05)
        self.gain = nn.Parameter(torch.full((hidden,), size))

    def parts(self, features: Tensor) -> Tensor:
        """Summary, mean patch, mean patch of each quarter."""
        step, patches = GRID // QUARTERS, features[:, 1:]
        quarters = patches.reshape(-1, QUARTERS, step, QUARTERS, step, WIDTH).mean((2, 4))
        return torch.cat([features[:, :1], patches.mean(1, keepdim=True),
                          quarters.reshape(-1, QUARTERS * QUARTERS, WIDTH)], 1)

    def standardise(self, features: Tensor) -> None:
        """Takes center and spread of each part from a sample of films."""
        parts = self.parts(features)
        self.center.copy_(parts.mean(0))
        self.inverse.copy_(1 / parts.std(0).clamp(min=0.05))

    def forward(self, features: Tensor) -> Tensor:
        parts = (self.parts(features) - self.center) * self.inverse
        whole = F.gelu(self.whole(parts[:, :2].reshape(-1, 2 * WIDTH)))
        hidden = torch.cat([whole[:, None] * self.gate, F.gelu(self.part(parts[:, 2:]))], 1)
        y = self.down(hidden) + self.slot
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
