"""Labels and figures on made-up films."""

import numpy as np
import pandas as pd
import pytest

from train import films
from train.evaluate import auroc, f1, report_figures, tallies, within_sets
from train.settings import places


def row(**known):
    columns = ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Effusion", "Emphysema", "Fibrosis",
               "Infiltration", "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax",
               "No_Finding", "TB", "Opacity"]
    return {c: known.get(c, np.nan) for c in columns}


def test_a_blank_is_not_an_absence():
    truth = films.truth(pd.DataFrame([row(Nodule=0, Mass=1), row(Nodule=0), row(Nodule=0, Mass=0), row(Effusion=1)]))
    lesion, effusion = films.TARGETS.index("Lung Lesion"), films.TARGETS.index("Pleural Effusion")
    assert truth[0, lesion] == 1 and np.isnan(truth[1, lesion]) and truth[2, lesion] == 0
    assert truth[3, effusion] == 1 and np.isnan(truth[0, effusion])


def test_labels_of_one_class_in_a_set_are_masked():
    table = pd.DataFrame({"set": ["a"] * 12 + ["b"] * 12, "part": ["train"] * 24})
    truth = np.full((24, len(films.TARGETS)), np.nan, np.float32)
    truth[:6, 0], truth[6:12, 0] = 1, 0
    truth[12:, 0] = 1
    fair = films.Films(table, truth).fair()
    assert not np.isnan(fair[:12, 0]).any() and np.isnan(fair[12:, 0]).all()


def test_auroc_and_weighting():
    assert auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.2, 0.3, 0.4])) == 1
    assert auroc(np.array([0, 1]), np.array([1, 1])) == 0.5
    truth = np.array([0, 1, np.nan, 0, 0, 1])
    score = np.array([0.0, 1, 5, 2, 3, 1])
    sets = np.array(["nih"] * 3 + ["nih64"] * 3)
    assert within_sets(truth, score, sets) == pytest.approx(1 / 3)


def test_unknown_counts_nowhere():
    counts = tallies(np.array([[1, 0, np.nan]]), np.array([[True, True, True]]))
    assert counts.sum(1).tolist() == [[1, 1, 0]]
    assert f1(counts.sum((0, 1))) == pytest.approx(2 / 3)


def test_a_report_that_looks_beats_one_that_does_not():
    rng = np.random.default_rng(0)
    truth = (rng.random((200, 3)) < 0.4).astype(float)
    patients = np.array([f"p{i // 2}" for i in range(200)])
    groups = np.array(["s PA"] * 200)
    looks = np.where(rng.random(truth.shape) < 0.8, truth == 1, rng.random(truth.shape) < 0.4)
    good = report_figures(truth, looks, np.zeros(3, bool), groups, patients, ["a", "b", "c"])
    blind = report_figures(truth, rng.random(truth.shape) < 0.4, np.zeros(3, bool), groups, patients, ["a", "b", "c"])
    assert good["macro"]["difference"]["interval"][0] > 0.2
    low, high = blind["macro"]["difference"]["interval"]
    assert low < 0 < high
    assert good["macro"]["zeroed"]["value"] == 0


def test_split_of_the_data_pack():
    where = places()
    if not where.labels.exists():
        pytest.skip("../shared absent")
    known = films.load(where)
    patients = {part: set(known.table["patient"].iloc[known.rows(part)]) for part in ("train", "dev", "val")}
    assert not patients["train"] & patients["val"] and not patients["dev"] & patients["val"]
    assert not patients["train"] & patients["dev"]
    assert "LATERAL" not in set(known.table["view"])
    assert films.UPSIDE_DOWN not in set(known.table["id"])
