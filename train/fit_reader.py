"""Stage ``reader``: adapter and LoRA learn to write the grammar's reports from frozen features."""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from . import features, films, masks
from .base import Base, gguf_file, write_tokenizer
from .grammar import IMPRESSIONS, TOPICS, Facts, compose, parse
from .language import Language
from .reader import Adapter, Prompt, greedy
from .settings import FEATURE_TOKENS, FINDINGS, IMPRESSION, WIDTH, Places

WEIGHTS, CHECKPOINT = "reader.pt", "reader.checkpoint.pt"
ALIGNED = 1500         # steps of the adapter alone, ALIGN_BATCH films each, before the language model joins
ALIGN_BATCH, ALIGN_RATE = 64, 2e-3
BATCH = 4
DRAWN = 6              # batches drawn at once and sorted by length, so that little is padded
RATES = {"adapter": 1.5e-3, "lora": 1.5e-3}
BLANK = 0.08           # share of samples that see zeroed features and a film drawn at random
NOISE = 0.15           # of the features, whose own spread is about 1
DECISION = 4.0         # weight of the token that decides a topic; other tokens weigh 1
BALANCE, MOST = 0.8, 8.0  # present is weighted (absent / present) ** BALANCE, at most MOST
RICHER = 1.0           # a film is drawn 1 + RICHER * (rarer findings present, at most 2) times as often,
SPARSE = 0.4           # and SPARSE times as often if fewer than five topics are known
READ = 0.7             # share of samples whose states are the frozen head's reading instead of the labels
READ_BALANCE = 0.0     # power of the balancing weights in such samples; 1 in the others
SAID = 0.9             # the head's reading says a label of prevalence p in p ** SAID of the films
RARER = ("Consolidation", "Edema", "Atelectasis", "Lung Lesion", "Pneumothorax", "Pleural Effusion",
         "Pleural Other", "Cardiomegaly")
SAVE_EVERY = 150       # seconds between checkpoints
LOOK_EVERY, LOOKED_AT = 1200, 96  # seconds between looks at development films, and how many


def facts_of(places: Places, known: films.Films) -> list[Facts]:
    outlined = masks.read(places.data / "cxr" / "masks")
    out = []
    for film, row in zip(known.table["id"], known.truth):
        where, devices = outlined.get(film, ({}, ()))
        states = {name: bool(v) for name, v in zip(films.TARGETS, row) if not np.isnan(v)}
        out.append(Facts(states, where, devices))
    return out


def train_rows(facts: list[Facts], known: films.Films) -> np.ndarray:
    """Train films of which something can be said."""
    return np.array([i for i in known.rows("train") if compose(facts[i], random.Random(0))[1]])


def choice_weights(facts: list[Facts], chance: np.ndarray) -> dict[tuple[str, str], float]:
    """Loss weight of each (label, choice), so that a rare finding is said at a useful threshold.
    ``chance`` is how often each film is drawn. Weights of a label average to 1."""
    tally: dict[str, dict[str, float]] = {}
    for fact, share in zip(facts, chance):
        for decision in compose(fact, random.Random(0))[1]:
            kinds = tally.setdefault(decision.label, {})
            kinds[decision.choice] = kinds.get(decision.choice, 0) + share
    out = {}
    for label, kinds in tally.items():
        most, total = max(kinds.values()), sum(kinds.values())
        raw = {k: min(MOST, (most / n) ** BALANCE) for k, n in kinds.items()}
        mean = sum(raw[k] * n for k, n in kinds.items()) / total
        out |= {(label, k): w / mean for k, w in raw.items()}
    return out


def chances(facts: list[Facts]) -> np.ndarray:
    """How often each film is drawn."""
    out = np.array([(1 + RICHER * min(2, sum(bool(f.known.get(n)) for n in RARER)))
                    * (SPARSE if sum(t.label in f.known for t in TOPICS) < 5 else 1.0) for f in facts])
    return out / out.sum()


def head_logits(places: Places, cached: np.ndarray) -> np.ndarray:
    """The findings head on cached features [films, tokens, WIDTH] (zeros where nothing is cached)."""
    head = features.trained_encoder(places).head
    with torch.inference_mode():
        return np.concatenate([
            head(torch.cat([part[:, 0], part[:, 1:].mean(1)], 1)).numpy()
            for part in (torch.from_numpy(cached[i:i + 256].astype(np.float32)) for i in range(0, len(cached), 256))])


def operating_points(known: films.Films, logits: np.ndarray) -> np.ndarray:
    """Logit per finding above which the head's reading says it: quantiles over the development films
    of the NIH sets, where every finding is labelled, for prevalences over the train films."""
    nih = known.table["set"].isin(("nih", "nih64")).to_numpy()
    dev = (known.table["part"] == "dev").to_numpy() & nih
    train = (known.table["part"] == "train").to_numpy() & nih
    out = np.zeros(len(FINDINGS))
    for j in range(len(FINDINGS)):
        prevalence = np.nanmean(known.truth[train, j])
        labelled = dev & ~np.isnan(known.truth[:, j])
        out[j] = np.quantile(logits[labelled, j], 1 - prevalence ** SAID)
    return out


def reading(fact: Facts, logits: np.ndarray, points: np.ndarray) -> Facts:
    """The same film with the states that the head reads from the features, for the labels that are
    known. This teaches the language model what the features hold; labels alone are noisy and few."""
    said = {name: bool(logit > point) for name, logit, point in zip(FINDINGS, logits, points)}
    said["Lung Opacity"] |= any(said[n] for n in ("Consolidation", "Edema", "Atelectasis", "Pneumonia"))
    said["No Finding"] &= not any(said[t.label] for t in TOPICS if t.label in fact.known)
    known = {name: said.get(name, state) for name, state in fact.known.items()}
    return Facts(known, fact.where, fact.devices)


class Writer:
    """Turns facts into answer ids and token weights."""

    def __init__(self, prompt: Prompt, weights: dict[tuple[str, str], float]):
        self.prompt, self.weights = prompt, weights

    def __call__(self, facts: Facts, rng: random.Random, balance: float = 1.0) -> tuple[list[int], list[float]]:
        text, decisions = compose(facts, rng)
        encoded = self.prompt.tokenizer.encode(text, add_special_tokens=False)
        weights = [1.0] * (len(encoded.ids) + 1)
        at = {d.at: d for d in decisions}
        for i, (start, end) in enumerate(encoded.offsets):
            hit = next((at[c] for c in range(start, end) if c in at), None)
            if hit:
                weights[i] = DECISION * self.weights.get((hit.label, hit.choice), 1.0) ** balance
        return encoded.ids + [self.prompt.end], weights


def wordings(language: Language, prompt: Prompt) -> dict[tuple[str, str], Tensor]:
    """(label, choice) -> the mean embedding of the words with which the grammar says it, at unit
    spread: half the words before the decision, which name the topic, and the ending's words."""
    def mean(texts: list[str]) -> Tensor:
        return torch.stack([language.embed(torch.tensor(prompt.encode(" " + t))).mean(0) for t in texts]).mean(0)

    def unit(x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.square().mean() + 1e-12)

    out = {}
    words = {"place": "", "opacities": "opacities", "lesion": "nodule"}
    for topic in TOPICS:
        lead = mean([f.lead for f in topic.frames] + [topic.label.lower()])
        for choice in ("present", "absent"):
            endings = [e.format(**words) for f in topic.frames for e in getattr(f, choice)]
            out[topic.label, choice] = unit(0.5 * lead + mean(endings))
    for verdict, texts in IMPRESSIONS.items():
        if "," not in verdict:
            out["Impression", verdict] = unit(0.5 * mean([IMPRESSION]) + mean(list(texts)))
    return out


def align(adapter: Adapter, wording: dict[tuple[str, str], Tensor], cached: list[np.ndarray], train: np.ndarray,
          chance: np.ndarray, facts: list[Facts], logits: list[np.ndarray], points: np.ndarray, seed: int) -> None:
    """Brings the image tokens into the language of the model before it reads them: the first tokens
    are drawn towards the mean embedding of the words for what the film shows, a topic each. Cheap, and
    all of it is only a start: afterwards adapter and LoRA are trained on reports alone."""
    labels = [t.label for t in TOPICS] + ["Impression"]
    slot = {label: i for i, label in enumerate(labels)}
    optimizer = torch.optim.AdamW(adapter.parameters(), ALIGN_RATE, weight_decay=0.02)
    targets: dict[tuple[int, int], list] = {}
    started, total = time.time(), 0.0
    for step in range(ALIGNED):
        rng = np.random.default_rng((seed, step, 2))
        for group in optimizer.param_groups:
            group["lr"] = ALIGN_RATE * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * step / ALIGNED))
        rows, copies = rng.choice(train, ALIGN_BATCH, p=chance), rng.integers(0, len(cached), ALIGN_BATCH)
        image = torch.from_numpy(np.stack([cached[c][i] for i, c in zip(rows, copies)]).astype(np.float32))
        image = image + NOISE * torch.from_numpy(rng.standard_normal(image.shape, np.float32))
        at, wanted = [], []
        for k, key in enumerate(zip(rows.tolist(), copies.tolist())):
            if key not in targets:
                read = reading(facts[key[0]], logits[key[1]][key[0]], points)
                targets[key] = [(slot[d.label], wording[d.label, d.choice])
                                for d in compose(read, random.Random(0))[1]]
            for position, vector in targets[key]:
                at.append((k, position))
                wanted.append(vector)
        where = torch.tensor(at)
        tokens = adapter(image) / adapter.gain
        loss = F.mse_loss(tokens[where[:, 0], where[:, 1]], torch.stack(wanted))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item()
        if (step + 1) % 250 == 0:
            print(f"reader: alignment step {step + 1} loss {total / 250:.4f}, {time.time() - started:.0f} s", flush=True)
            total = 0.0


@dataclass
class Sample:
    film: int
    copy: int  # which cached features; COPIES means the plain ones
    blank: bool
    answer: list[int]
    weights: list[float]


def draw(rng: np.random.Generator, train: np.ndarray, chance: np.ndarray, facts: list[Facts],
         logits: list[np.ndarray], points: np.ndarray, writer: Writer) -> list[list[Sample]]:
    """DRAWN batches; films of one batch have answers of like length."""
    words = random.Random(int(rng.integers(2 ** 62)))
    samples = []
    for film in rng.choice(train, BATCH * DRAWN, p=chance):
        copy, blank = int(rng.integers(0, features.COPIES + 1)), bool(rng.random() < BLANK)
        fact, balance = facts[film], 1.0
        if blank:  # what the labels say of films in general: the text's prior
            fact, balance = facts[rng.choice(train)], 0.0
        elif rng.random() < READ:
            fact, balance = reading(fact, logits[copy][film], points), READ_BALANCE
        samples.append(Sample(int(film), copy, blank, *writer(fact, words, balance)))
    samples.sort(key=lambda s: len(s.answer))
    batches = [samples[i:i + BATCH] for i in range(0, len(samples), BATCH)]
    rng.shuffle(batches)
    return batches


def loss_of(language: Language, prompt: Prompt, image: Tensor, answers: list[list[int]],
            weights: list[list[float]]) -> tuple[Tensor, Tensor]:
    """(weighted mean loss, mean unweighted loss of the deciding tokens)"""
    longest = max(map(len, answers))
    ids = torch.tensor([a + [prompt.end] * (longest - len(a)) for a in answers])
    weight = torch.tensor([w + [0.0] * (longest - len(w)) for w in weights])
    x = torch.cat([prompt.embed(language, image), language.embed(ids[:, :-1])], 1)
    hidden, _ = language(x)
    hidden = hidden[:, x.shape[1] - longest:]
    used = weight > 0
    nll = F.cross_entropy(language.logits(hidden[used]), ids[used], reduction="none")
    deciding = weight[used] != 1
    return (nll * weight[used]).sum() / used.sum(), nll[deciding].mean().detach()


def agreement(said: list[dict[str, bool]], facts: list[Facts], groups: np.ndarray) -> str:
    """Micro F1 on topics and impression against own film and against others of the same group."""
    labels = [t.label for t in TOPICS] + ["Pneumonia", "No Finding"]
    own, other = np.zeros(3), np.zeros(3)
    for i, fact in enumerate(facts):
        for j in np.flatnonzero(groups == groups[i]):
            into = own if i == j else other
            share = 1.0 if i == j else 1.0 / max(1, (groups == groups[i]).sum() - 1)
            for label in labels:
                if label in fact.known:
                    claim, real = said[j].get(label, False), fact.known[label]
                    into += share * np.array([claim and real, claim and not real, real and not claim])
    f1 = [2 * t[0] / max(1e-9, 2 * t[0] + t[1] + t[2]) for t in (own, other)]
    return f"F1 {f1[0]:.3f}, with another film of the set and view {f1[1]:.3f}"


def run(places: Places, minutes: float = 60, seed: int = 1) -> None:
    done, checkpoint = places.cached(WEIGHTS), places.cached(CHECKPOINT)
    if done.exists():
        print(f"reader: {done} is whole, nothing to do")
        return
    torch.manual_seed(seed)
    known = films.load(places)
    facts = facts_of(places, known)
    plain = np.load(places.cached(features.PLAIN), mmap_mode="r")
    varied = np.load(places.cached(features.VARIED), mmap_mode="r")
    tokenizer = places.cached("tokenizer.json")
    base = Base(gguf_file(places))
    write_tokenizer(base, tokenizer)
    language, adapter, prompt = Language(base), Adapter(base.hidden), Prompt(tokenizer)

    train = train_rows(facts, known)
    chance = chances([facts[i] for i in train])
    weights = choice_weights([facts[i] for i in train], chance)
    writer = Writer(prompt, weights)
    print(f"reader: {len(train)} films; weights " +
          ", ".join(f"{a} {b} {w:.2f}" for (a, b), w in sorted(weights.items()) if b != "absent"))
    logits = [head_logits(places, f) for f in (*varied, plain)]
    points = operating_points(known, logits[-1])
    dev = np.array([i for i in known.rows("dev") if known.table["set"][i] in ("nih", "nih64")])
    dev = np.random.default_rng(0).permutation(dev)[:LOOKED_AT]

    adapter.standardise(torch.from_numpy(plain[train].astype(np.float32)))
    lora = [p for n, p in language.named_parameters()]
    optimizer = torch.optim.AdamW([{"params": list(adapter.parameters()), "weight_decay": 0.02},
                                   {"params": lora, "weight_decay": 0.0}], lr=0, betas=(0.9, 0.98))
    spent, step, waiting = 0.0, 0, []
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=False)
        adapter.load_state_dict(state["adapter"])
        language.load_state_dict(state["lora"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        spent, step = state["spent"], state["step"]
        print(f"reader: resumes after {spent / 60:.1f} min, step {step}")

    else:
        align(adapter, wordings(language, prompt), [*varied, plain], train, chance, facts, logits, points, seed)
    budget, began = minutes * 60, time.time() - spent
    looked = saved = logged = time.time()
    total, deciding, seen = 0.0, 0.0, 0
    while (spent := time.time() - began) < budget:
        if not waiting:
            waiting = draw(np.random.default_rng((seed, step)), train, chance, facts, logits, points, writer)
        rate = min(1, (step + 1) / 40) * 0.5 * (1 + math.cos(math.pi * spent / budget))
        for group, peak in zip(optimizer.param_groups, RATES.values()):
            group["lr"] = peak * rate
        batch = waiting.pop()
        answers, token_weights = [s.answer for s in batch], [s.weights for s in batch]
        rng = np.random.default_rng((seed, step, 1))
        image = np.stack([plain[s.film] if s.copy == features.COPIES else varied[s.copy, s.film] for s in batch])
        image = torch.from_numpy(image.astype(np.float32))
        image = image + NOISE * torch.from_numpy(rng.standard_normal(image.shape, np.float32))
        image[torch.tensor([s.blank for s in batch])] = 0
        loss, decided = loss_of(language, prompt, adapter(image), answers, token_weights)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*adapter.parameters(), *lora], 1.0)
        optimizer.step()
        step += 1
        total, deciding, seen = total + loss.item(), deciding + decided.item(), seen + 1
        if time.time() - logged > 60:
            spent = time.time() - began
            print(f"reader: step {step} loss {total / seen:.4f} deciding tokens {deciding / seen:.4f} "
                  f"{seen * BATCH / (time.time() - logged):.2f} samples/s, {spent / 60:.1f} min, "
                  f"{(budget - spent) / 60:.1f} left", flush=True)
            total = deciding = 0.0
            seen, logged = 0, time.time()
        if time.time() - saved > SAVE_EVERY:
            save(checkpoint, language, adapter, optimizer=optimizer.state_dict(), spent=time.time() - began, step=step)
            saved = time.time()
        if time.time() - looked > LOOK_EVERY:
            look(language, adapter, prompt, plain, dev, facts, known)
            looked = time.time()
    look(language, adapter, prompt, plain, dev, facts, known)
    save(done, language, adapter, steps=step, minutes=spent / 60, samples=step * BATCH)
    print(f"reader: {step} steps, {step * BATCH} samples in {spent / 60:.1f} min -> {done}")


def look(language: Language, adapter: Adapter, prompt: Prompt, plain: np.ndarray, dev: np.ndarray,
         facts: list[Facts], known: films.Films) -> None:
    """Reports of the development films against their labels."""
    with torch.inference_mode():
        texts = []
        for start in range(0, len(dev), 32):
            image = adapter(torch.from_numpy(plain[dev[start:start + 32]].astype(np.float32)))
            texts += [prompt.decode(a) for a in greedy(language, prompt, image, 110)]
        blank = prompt.decode(greedy(language, prompt, adapter(torch.zeros(1, FEATURE_TOKENS, WIDTH)), 110)[0])
    said = [parse(t) for t in texts]
    groups = (known.table["set"] + known.table["view"]).to_numpy()[dev]
    rate = {t.label: f"{np.mean([s.get(t.label, False) for s in said]):.2f}" for t in TOPICS}
    print(f"reader: dev {len(dev)} films, {len(set(texts))} different reports, "
          f"{agreement(said, [facts[i] for i in dev], groups)}; said present {rate}\n"
          f"reader: first {texts[0]!r}\nreader: blank {blank!r}", flush=True)


def save(path, language: Language, adapter: Adapter, **more) -> None:
    lora = {n: p.detach() for n, p in language.named_parameters()}
    partial = path.with_suffix(".part")
    torch.save({"adapter": adapter.state_dict(), "lora": lora, **more}, partial)
    partial.rename(path)


def trained(places: Places) -> tuple[Adapter, dict[str, Tensor]]:
    """The adapter, rounded to float16, and the LoRA tensors under their names in the bundle."""
    from .language import ALPHA, RANK

    state = torch.load(places.cached(WEIGHTS), weights_only=False)
    adapter = Adapter()
    adapter.load_state_dict({k: v.half().float() for k, v in state["adapter"].items()})
    lora = {}
    for name, value in state["lora"].items():  # blocks.L.NAME.lora_x
        _, layer, projection, side = name.split(".")
        lora[f"blk.{layer}.{projection}.{side}"] = value * (ALPHA / RANK if side == "lora_b" else 1)
    return adapter.eval(), lora


