"""The grammar says what is known, nothing else, and decides at one word."""

import random

from train.grammar import ASIDES, TOPICS, Facts, compose, conclusion, parse
from train.settings import FINDINGS, IMPRESSION


def test_each_polarity_of_a_frame_begins_with_one_word():
    for topic in TOPICS:
        for frame in topic.frames:
            starts = [{e.format(place="", opacities="opacities", lesion="nodule").split()[0].strip(".,") for e in endings}
                      for endings in (frame.present, frame.absent)]
            if topic.label == "Lung Opacity" and frame.lead == "The lungs":
                assert starts[0] == {"show"}
            assert all(len(s) == 1 for s in starts), (topic.label, frame, starts)
            assert not starts[0] & starts[1]


def test_unknown_is_not_said():
    text, decisions = compose(Facts({"Cardiomegaly": False}), random.Random(1))
    assert [d.label for d in decisions] == ["Cardiomegaly"]
    assert IMPRESSION not in text
    assert compose(Facts({}), random.Random(1)) == ("", [])


def test_order_and_decisions():
    known = {name: False for name in FINDINGS} | {"Pleural Effusion": True}
    for seed in range(50):
        text, decisions = compose(Facts(known), random.Random(seed))
        assert [d.label for d in decisions] == [t.label for t in TOPICS] + ["Impression"]
        assert [d.at for d in decisions] == sorted(d.at for d in decisions)
        assert all(text[d.at] == " " for d in decisions)
        body, _, impression = text.partition("\n")
        assert body.endswith(".") and impression.startswith(IMPRESSION + " Abnormal")
        assert text.isascii() and text.count("\n") == 1
        for d in decisions:
            if d.label == "Pleural Effusion":
                assert d.choice == "present"
                assert text[d.at + 1:].split()[0].strip(".,") in ("a", "present", "blunted")


def test_place_only_with_a_present_finding():
    facts = {"Consolidation": " in the right lower lung zone", "Lung Opacity": " in both lungs"}
    text, _ = compose(Facts({"Consolidation": True, "Lung Opacity": False}, facts), random.Random(3))
    assert "right lower" in text and "both lungs" not in text


def test_asides_and_devices():
    text, decisions = compose(Facts({"Emphysema": True, "Fibrosis": False}, devices=("endotracheal_tube",)),
                              random.Random(0))
    assert any(s in text for s in ASIDES["Emphysema"]) and "fibrosis" not in text
    assert "endotracheal tube" in text and not decisions


def test_conclusion():
    assert conclusion({"No Finding": True, "Pneumonia": False}) == "normal"
    assert conclusion({"No Finding": False, "Pneumonia": True}) == "pneumonia"
    assert conclusion({"No Finding": False, "Pneumonia": False}) == "abnormal, no pneumonia"
    assert conclusion({"No Finding": False}) == "abnormal"
    assert conclusion({"Pneumonia": False}) is None


def test_seeded():
    known = {name: False for name in FINDINGS}
    assert compose(Facts(known), random.Random(5)) == compose(Facts(known), random.Random(5))
    assert len({compose(Facts(known), random.Random(s))[0] for s in range(40)}) > 35


def test_parse_reads_back_what_was_composed():
    for seed in range(200):
        rng = random.Random(seed)
        known = {name: rng.random() < 0.4 for name in FINDINGS[1:] if rng.random() < 0.8}
        known["No Finding"] = not any(known.values())
        text, _ = compose(Facts(known, {"Consolidation": " in both lungs"}), rng)
        said = parse(text)
        for topic in TOPICS:
            assert said.get(topic.label) == known.get(topic.label), (text, topic.label)
        if known.get("Pneumonia") and not known["No Finding"]:
            assert said["Pneumonia"]
        if "No Finding" in said:
            assert said["No Finding"] == known["No Finding"]
