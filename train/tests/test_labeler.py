"""The service's rule labeler hears in the grammar's reports what was meant."""

import random

import pytest

from train.grammar import TOPICS, Facts, compose
from train.labeler import heard
from train.settings import FINDINGS, places


def test_the_service_hears_what_the_grammar_means():
    binary = places().chatxray
    if not binary.exists():
        pytest.skip("bin/chatxray absent")
    rng, meant, reports = random.Random(4), [], []
    for _ in range(300):
        known = {name: rng.random() < 0.4 for name in FINDINGS[1:]}
        known["No Finding"] = not any(known.values())
        meant.append(known)
        reports.append(compose(Facts(known, {"Consolidation": " in the left lower lung zone"}), rng)[0])
    said, _ = heard(reports, binary)
    for known, film, report in zip(meant, said, reports):
        for topic in TOPICS:
            assert film.get(topic.label, False) == known[topic.label], (topic.label, report)
        assert film.get("No Finding", False) == known["No Finding"], report
        assert film.get("Pneumonia", False) == known["Pneumonia"], report
