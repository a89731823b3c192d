"""Stage ``encoder``: masked BCE on the labels that are known, within a time budget, resumable."""

from __future__ import annotations

import copy
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from . import films, prepare
from .encoder import Encoder
from .films import TARGETS
from .settings import SIDE, Places
from .wheels import wheel

CHECKPOINT, WEIGHTS = "encoder.checkpoint.pt", "encoder.pt"
BATCH, SMOOTHING = 32, 0.03
SMALL = 224  # side of the first part of training: cheaper steps
SMALL_PART = 0.7


def augment(x: Tensor, coarse: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """Geometry, gray curve and a resolution equaliser, on values in -1..1. ``coarse`` marks films
    that were 64 or 128 px in the first place; part of the others are brought down to that, so that
    sharpness does not give the set (and its labels) away."""
    def spread(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=rng) * 2 - 1

    batch = len(x)
    blur = (torch.rand(batch, generator=rng) < 0.4) & ~coarse
    if blur.any():
        x = x.clone()
        small = F.interpolate(x[blur], size=(64, 64), mode="area")
        x[blur] = F.interpolate(small, size=x.shape[-2:], mode="bilinear")
    angle, scale, aspect = spread(batch) * math.radians(8), 1 + spread(batch) * 0.13, 1 + spread(batch) * 0.06
    theta = torch.zeros(batch, 2, 3)
    theta[:, 0, 0], theta[:, 0, 1] = angle.cos() * scale * aspect, -angle.sin() * scale
    theta[:, 1, 0], theta[:, 1, 1] = angle.sin() * scale, angle.cos() * scale / aspect
    theta[:, :, 2] = spread(batch, 2) * 0.08
    x = F.grid_sample(x, F.affine_grid(theta, (batch, 1, side, side), align_corners=False),
                      align_corners=False, padding_mode="border")
    x = ((x + 1) / 2).clamp(1e-4, 1) ** torch.exp(spread(batch, 1, 1, 1) * 0.3)
    x = (x - 0.5) * (1 + spread(batch, 1, 1, 1) * 0.2) + 0.5 + spread(batch, 1, 1, 1) * 0.1
    return x.clamp(0, 1) * 2 - 1


def masked_loss(logits: Tensor, truth: Tensor) -> Tensor:
    known = ~torch.isnan(truth)
    target = torch.nan_to_num(truth) * (1 - 2 * SMOOTHING) + SMOOTHING
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return (loss * known).sum() / known.sum().clamp(min=1)


def average(into: nn.Module, model: nn.Module, decay: float) -> None:
    """One step of the exponential moving average, buffers included."""
    with torch.no_grad():
        for mine, theirs in zip(into.state_dict().values(), model.state_dict().values()):
            if mine.dtype.is_floating_point:
                mine.lerp_(theirs, 1 - decay)
            else:
                mine.copy_(theirs)


def predict(model: Encoder, pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    model.eval()
    out = []
    with torch.inference_mode():
        for start in range(0, len(rows), 32):
            x = torch.from_numpy(pixels[rows[start:start + 32]].astype(np.float32))[:, None]
            out.append(model(x.contiguous(memory_format=torch.channels_last)).numpy())
    return np.concatenate(out)


def train_rows(known: films.Films) -> np.ndarray:
    """Train films with at least one label that can be used."""
    train, truth = known.rows("train"), known.fair()
    return train[(~np.isnan(truth[train])).any(1)]


def counts(places: Places) -> dict[str, int]:
    """Train films per set."""
    known = films.load(places)
    return {str(k): int(n) for k, n in known.table["set"].iloc[train_rows(known)].value_counts().items()}


def run(places: Places, minutes: float = 30, seed: int = 1) -> None:
    done = places.cached(WEIGHTS)
    if done.exists():
        print(f"encoder: {done} is whole, nothing to do")
        return
    known = films.load(places)
    truth = torch.from_numpy(known.fair())
    pixels = np.load(places.cached(prepare.PIXELS), mmap_mode="r")
    coarse = torch.from_numpy(known.table["set"].isin(["nih64", "tb128"]).to_numpy().copy())
    train = train_rows(known)

    torch.manual_seed(seed)
    rng = torch.Generator().manual_seed(seed)
    model = Encoder()
    model.trunk.load_imagenet(wheel(places, "encoder"))
    model = model.to(memory_format=torch.channels_last)
    ema = copy.deepcopy(model).eval()
    trunk = list(model.trunk.parameters())
    rest = [p for n, p in model.named_parameters() if not n.startswith("trunk.")]
    rates = (3e-4, 5e-4)
    optimizer = torch.optim.AdamW([{"params": trunk}, {"params": rest}], lr=0, weight_decay=0.05)
    spent, step, epoch = 0.0, 0, 0
    checkpoint = places.cached(CHECKPOINT)
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        model.load_state_dict(state["model"]); ema.load_state_dict(state["ema"])
        optimizer.load_state_dict(state["optimizer"]); rng.set_state(state["rng"])
        spent, step, epoch = state["spent"], state["step"], state["epoch"]
        print(f"encoder: resumes after {spent / 60:.1f} min, epoch {epoch}")

    budget, began = minutes * 60, time.time() - spent
    while (spent := time.time() - began) < budget:
        model.train()
        order = torch.from_numpy(np.random.default_rng((seed, epoch)).permutation(train))
        total, seen, mark = 0.0, 0, time.time()
        for batch in order.split(BATCH):
            part = min(1.0, (time.time() - began) / budget)
            if part >= 1:
                break
            side = SMALL if part < SMALL_PART else SIDE
            rate = min(1, (step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * part))
            for group, base in zip(optimizer.param_groups, rates):
                group["lr"] = base * rate
            x = torch.from_numpy(pixels[batch.numpy()].astype(np.float32))[:, None]
            x = augment(x, coarse[batch], side, rng).contiguous(memory_format=torch.channels_last)
            loss = masked_loss(model(x), truth[batch])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 2.0)
            optimizer.step()
            step += 1
            average(ema, model, min(0.995, (1 + step) / (10 + step)))
            total, seen = total + loss.item() * len(batch), seen + len(batch)
            if step % 25 == 0:
                print(f"encoder: step {step} loss {total / seen:.4f} {seen / (time.time() - mark):.1f} images/s "
                      f"at {side} px, {(budget - time.time() + began) / 60:.1f} min left", flush=True)
        epoch += 1
        spent = time.time() - began
        print(f"encoder: epoch {epoch} loss {total / max(seen, 1):.4f} "
              f"{seen / (time.time() - mark):.1f} images/s at {side} px, {spent / 60:.1f} min, "
              f"{max(0, budget - spent) / 60:.1f} left", flush=True)
        if epoch % 3 == 0:
            dev = known.rows("dev")
            print("encoder: dev BCE %.4f" % masked_loss(
                torch.from_numpy(predict(ema, pixels, dev)), truth[dev]).item(), flush=True)
        torch.save({"model": model.state_dict(), "ema": ema.state_dict(), "rng": rng.get_state(),
                    "optimizer": optimizer.state_dict(), "spent": spent, "step": step,
                    "epoch": epoch}, checkpoint)
    partial = done.with_suffix(".part")
    torch.save({"model": ema.state_dict(), "epochs": epoch, "minutes": spent / 60}, partial)
    Path(partial).rename(done)
    print(f"encoder: {epoch} epochs in {spent / 60:.1f} min -> {done}")
