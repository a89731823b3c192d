"""Stage ``planted``: does evidence tell true sentences from false ones? On ``val``, by the product itself.

A pair is two films of one set and view and of two patients; a finding is known to be present in the one and
known to be absent in the other. What is known alike of both is written as the grammar writes it, true for both;
behind it stands one sentence about the finding, in two versions of one frame. Both films are weighed with both
versions: four sentences, two true and two planted false ones. So every text, with all that stands before it, is true
exactly as often as it is false, and whoever reads texts alone, however well, scores an AUROC of one half."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from dataclasses import asdict, dataclass

import numpy as np

from . import evaluate, films
from .evaluate import auroc, interval
from .films import TARGETS
from .grammar import IMPRESSIONS, TOPICS, Frame
from .settings import IMPRESSION, Places

MOST = 60     # pairs of a finding
PARTNERS = 3  # that a film has at most, where a finding is rare
FEWEST = 10   # pairs for a finding to count in the mean over findings
WORDS = {"place": "", "opacities": "opacities", "lesion": "nodule"}


@dataclass(frozen=True)
class Pair:
    label: str
    present: int  # row of the film in which the finding is
    absent: int
    before: str   # true for both
    versions: tuple[str, str]  # says present, says absent


def alike(a: np.ndarray, b: np.ndarray) -> dict[str, bool]:
    return {name: bool(x) for name, x, y in zip(TARGETS, a, b) if x == y}


def versions(frame: Frame, rng: random.Random) -> tuple[str, str]:
    """An ending of each polarity, as alike in length as the frame has them."""
    present = rng.choice(frame.present).format(**WORDS)
    absent = min(frame.absent, key=lambda e: (abs(len(e.split()) - len(present.split())), rng.random()))
    return f"{frame.lead} {present}", f"{frame.lead} {absent}"


def sentences(known: dict[str, bool], upto: str | None, rng: random.Random) -> list[str]:
    """One sentence for each topic that is known, up to a topic."""
    out = []
    for topic in TOPICS:
        if topic.label == upto:
            break
        if (state := known.get(topic.label)) is not None:
            frame = rng.choices(topic.frames, [f.share for f in topic.frames])[0]
            out.append(f"{frame.lead} {rng.choice(frame.present if state else frame.absent).format(**WORDS)}")
    return out


def plant(label: str, known: dict[str, bool], rng: random.Random) -> tuple[str, tuple[str, str]]:
    """What stands before, and the two versions."""
    topic = next((t for t in TOPICS if t.label == label), None)
    before = " ".join(sentences(known, label, rng))
    if topic:
        return before, versions(rng.choices(topic.frames, [f.share for f in topic.frames])[0], rng)
    normal, abnormal, spared, pneumonia = (IMPRESSIONS[k][0] for k in ("normal", "abnormal", "abnormal, no pneumonia", "pneumonia"))
    return f"{before}\n{IMPRESSION}", (normal, abnormal) if label == "No Finding" else (pneumonia, spared)


def pairs(known: films.Films, part: str, seed: int = 5) -> list[Pair]:
    rows = evaluate.scored_rows(known, part)
    table = known.table
    group = (table["set"] + " " + table["view"]).to_numpy()
    patient = table["patient"].to_numpy()
    column = {name: known.truth[:, i] for i, name in enumerate(TARGETS)}
    out = []
    for label in [t.label for t in TOPICS] + ["Pneumonia", "No Finding"]:
        rng = random.Random(f"{seed} {label}")
        usable = [r for r in rows if label != "Pneumonia" or column["No Finding"][r] == 0]
        has = [r for r in usable if column[label][r] == 1]
        rng.shuffle(has)
        mine: list[Pair] = []
        for turn in range(PARTNERS):
            for a in has:
                without = [b for b in usable if column[label][b] == 0 and group[b] == group[a] and patient[b] != patient[a]]
                if without and len(mine) < MOST:
                    b = rng.choice(without)
                    before, said = plant(label, alike(known.truth[a], known.truth[b]), rng)
                    mine.append(Pair(label, int(a), int(b), before, said))
        out.append(mine)
    # In turn, so that what an interrupted run has is of all findings.
    return [mine[i] for i in range(MOST) for mine in out if i < len(mine)]


def text(pair: Pair, version: int) -> str:
    return f"{pair.before} {pair.versions[version]}".strip()


def weighed(places: Places, part: str) -> list[dict]:
    """For each pair [version][film] the evidence of the last sentence; kept per bundle as it comes, so that what was interrupted goes on."""
    known = films.load(places)
    target = places.cached(f"planted.{part}.{evaluate.digest(places)}.jsonl")
    wanted = pairs(known, part)
    kept = [json.loads(line) for line in target.read_text().splitlines()] if target.exists() else []
    rest = wanted[len(kept):]
    if not rest:
        return kept
    files = [str(places.data / "cxr" / name) for name in known.table["file"]]
    patients = known.table["patient"]
    print(f"planted: {len(rest)} of {len(wanted)} pairs of {part}, weighed by {places.chatxray}", flush=True)
    with tempfile.TemporaryFile("w+") as lines, target.open("a") as out:
        lines.writelines(json.dumps({"images": [files[p.present], files[p.absent]], "text": text(p, v)}) + "\n" for p in rest for v in (0, 1))
        lines.seek(0)
        with subprocess.Popen([str(places.chatxray), "weigh", "--bundle", str(places.bundle)], stdin=lines, stdout=subprocess.PIPE, text=True) as run:
            for pair in rest:
                said = [json.loads(run.stdout.readline()) for _ in (0, 1)]
                kept.append(asdict(pair) | {
                    "patients": [patients[pair.present], patients[pair.absent]], "set": known.table["set"][pair.present],
                    "evidence": [[film[-1]["evidence"] for film in version] for version in said]})
                out.write(json.dumps(kept[-1]) + "\n")
                out.flush()
    return kept


def flat(kept: list[dict], score) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(truth, score, pair, says present) of every sentence; ``score`` takes a sentence's evidence."""
    rows = [(film == version, score(pair["evidence"][version][film]), i, version == 0)
            for i, pair in enumerate(kept) for version in (0, 1) for film in (0, 1)]
    truth, value, pair, present = map(np.array, zip(*rows))
    return truth.astype(float), value.astype(float), pair, present


def drop(e: dict) -> float:
    return e["drop"]


def blank_only(e: dict) -> float:
    return e["blank"]


def figures(kept: list[dict], score=drop) -> dict:
    """AUROC of all, of each finding and of their mean, with intervals of resamples of patients (of the film that has the finding)."""
    truth, value, pair, present = flat(kept, score)
    label = np.array([p["label"] for p in kept])[pair]
    patient = np.array([p["patients"][0] for p in kept])[pair]
    counts = {name: sum(p["label"] == name for p in kept) for name in dict.fromkeys(p["label"] for p in kept)}
    enough = [n for n, c in counts.items() if c >= FEWEST]

    def of(rows: np.ndarray) -> dict[str, float]:
        out = {"all": auroc(truth[rows], value[rows])}
        for name, only in (("present", True), ("absent", False)):
            mine = rows[present[rows] == only]
            out[f"says {name}"] = auroc(truth[mine], value[mine])
        for name in counts:
            mine = rows[label[rows] == name]
            out[name] = auroc(truth[mine], value[mine])
        out["mean over findings"] = float(np.nanmean([out[n] for n in enough]))
        return out

    point, drawn = of(np.arange(len(truth))), [of(s) for s in evaluate.resamples(patient)]
    return {"sentences": len(truth), "pairs": counts, "auroc": {
        name: {"value": round(v, 3), "interval": interval([d[name] for d in drawn])} for name, v in point.items()}}


def run(places: Places, part: str = "val") -> None:
    kept = weighed(places, part)
    out = {"part": part, "bundle": evaluate.digest(places), "evidence": figures(kept), "text_only": figures(kept, blank_only)}
    places.cached(f"figures.planted.{part}.json").write_text(json.dumps(out, indent=1))
    print(f"planted: {part}, {out['evidence']['sentences']} sentences, half of them true; AUROC of the evidence [95 %], and of a scorer of texts alone")
    for name, v in out["evidence"]["auroc"].items():
        n = out["evidence"]["pairs"].get(name)
        print(f"  {name + (f' ({n} pairs)' if n else ''):32s} {v['value']:.3f} {v['interval']}   {out['text_only']['auroc'][name]['value']:.3f}")
