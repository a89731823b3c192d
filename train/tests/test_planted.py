"""Planted sentences: who reads texts alone scores one half, whatever it makes of them."""

from __future__ import annotations

import random

import numpy as np

from train import calibrate, planted
from train.grammar import TOPICS


def pair(i: int) -> dict:
    rng = random.Random(i)
    topic = TOPICS[i % len(TOPICS)]
    before, said = planted.plant(topic.label, {t.label: rng.random() < 0.3 for t in TOPICS}, rng)

    def evidence(version: int, film: int) -> dict:
        blank = float(sum(map(ord, before + said[version])) % 97)  # of the text alone
        return {"blank": blank, "decoys": [blank], "log_likelihood": blank, "drop": (1.0 if version == film else 0.0) + rng.gauss(0, 0.2)}

    return {"label": topic.label, "present": 2 * i, "absent": 2 * i + 1, "before": before, "versions": said,
            "patients": [f"a{i}", f"b{i}"], "evidence": [[evidence(v, f) for f in (0, 1)] for v in (0, 1)]}


def test_versions_share_their_frame() -> None:
    for i in range(200):
        said = pair(i)["versions"]
        lead = next(f.lead for t in TOPICS for f in t.frames if all(s.startswith(f.lead + " ") for s in said))
        assert lead and said[0] != said[1]


def test_a_scorer_of_texts_scores_one_half() -> None:
    kept = [pair(i) for i in range(60)]
    text, seen = planted.figures(kept, planted.blank_only), planted.figures(kept)
    assert text["auroc"]["all"]["value"] == 0.5 and text["sentences"] == 240
    assert seen["auroc"]["all"]["value"] > 0.95
    truth, _, _, present = planted.flat(kept, planted.drop)
    assert truth.mean() == 0.5 and np.mean(truth[present]) == 0.5


def test_no_curve_judges_a_patient_it_saw() -> None:
    kept = [p | {"patients": [f"a{i % 7}", f"b{i % 5}"]} for i, p in enumerate(map(pair, range(60)))]
    truth, drop, of, _ = planted.flat(kept, planted.drop)
    film = np.array([f for _ in kept for _ in (0, 1) for f in (0, 1)])
    fold = calibrate.folds(kept, of, film)
    patients = np.array([kept[i]["patients"][f] for i, f in zip(of, film)])
    assert all(len(set(fold[patients == name])) == 1 for name in patients) and len(set(fold)) == calibrate.FOLDS
    held = calibrate.out_of_fold(kept)
    assert held["brier"] < 0.1 and held["auroc"] > 0.95  # evidence that tells true from false
    blind = [p | {"evidence": [[e | {"drop": random.Random(repr((i, v, f))).gauss(0, 1)} for f, e in enumerate(row)] for v, row in enumerate(p["evidence"])]}
             for i, p in enumerate(kept)]
    assert calibrate.out_of_fold(blind)["brier_interval"][1] > 0.25  # evidence that does not: no curve
