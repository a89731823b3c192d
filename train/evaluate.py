"""Stage ``evaluate``: figures of the bundle on ``val``, through ONNX Runtime and the bundle's files.

Encoder: AUROC inside nih and inside nih64, weighted by pairs. Reports: F1 of what the report says
against the film's labels, and against the labels of other films of the same set and view (every
such pair of two patients, averaged); the difference is what comes from looking at this image rather
than from knowing the set. All intervals: 500 resamples of patients.
"""

from __future__ import annotations

import hashlib
import json
import time

import numpy as np

from . import films, labeler, prepare, reference
from .films import TARGETS
from .settings import FEATURE_TOKENS, FINDINGS, WIDTH, Places

RESAMPLES = 500
FEWEST = 10  # positives in val for a label to count in a macro average of F1
#: The macro AUROC is over these, so that it can be compared between encoders.
COMPARED = ("Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion", "Infiltration",
            "Pneumonia", "No Finding", "Lung Opacity")
SETS = ("nih", "nih64")
TOGETHER = 48  # films written at once


def resamples(patients: np.ndarray, seed: int = 0) -> list[np.ndarray]:
    """Row indices of each bootstrap sample of patients."""
    rng, names = np.random.default_rng(seed), np.unique(patients)
    rows = {p: np.flatnonzero(patients == p) for p in names}
    return [np.concatenate([rows[p] for p in rng.choice(names, len(names))]) for _ in range(RESAMPLES)]


def interval(values: list[float]) -> list[float]:
    return [round(float(v), 3) for v in np.nanpercentile(values, [2.5, 97.5])]


def auroc(truth: np.ndarray, score: np.ndarray) -> float:
    """Chance that a positive scores above a negative, ties half; NaN without both."""
    from scipy.stats import rankdata

    positive = truth == 1
    p, n = positive.sum(), (~positive).sum()
    if p == 0 or n == 0:
        return float("nan")
    return float((rankdata(score)[positive].sum() - p * (p + 1) / 2) / (p * n))


def within_sets(truth: np.ndarray, score: np.ndarray, sets: np.ndarray) -> float:
    """AUROC inside each set, weighted by its positive x negative pairs."""
    total = pairs = 0.0
    for name in SETS:
        mine = (sets == name) & ~np.isnan(truth)
        weight = (truth[mine] == 1).sum() * (truth[mine] == 0).sum()
        if weight:
            total, pairs = total + weight * auroc(truth[mine], score[mine]), pairs + weight
    return total / pairs if pairs else float("nan")


def encoder_figures(known: films.Films, rows: np.ndarray, scores: np.ndarray, labels: list[str]) -> dict:
    """``scores`` [rows, labels]."""
    table = known.table.iloc[rows]
    sets, truth = table["set"].to_numpy(), known.truth[rows][:, [TARGETS.index(n) for n in labels]]
    mine = np.isin(sets, SETS)
    truth, scores, sets = truth[mine], scores[mine], sets[mine]
    samples = resamples(table["patient"].to_numpy()[mine])
    out, kept, drawn = {"labels": {}}, [], []
    for j, name in enumerate(labels):
        positives = int((truth[:, j] == 1).sum())
        if positives < 3:
            continue
        value = within_sets(truth[:, j], scores[:, j], sets)
        values = [within_sets(truth[s, j], scores[s, j], sets[s]) for s in samples]
        out["labels"][name] = {"positives": positives, "auroc": round(value, 3), "interval": interval(values),
                               "macro": name in COMPARED}
        if name in COMPARED:
            kept.append(value)
            drawn.append(values)
    out["macro"] = round(float(np.mean(kept)), 3)
    out["interval"] = interval(np.nanmean(np.array(drawn), 0))
    out["count"] = len(kept)
    return out


def trivial_scores(known: films.Films, rows: np.ndarray, labels: list[str]) -> np.ndarray:
    """Logistic regression on age, sex, view and set: what no image is needed for."""
    from sklearn.linear_model import LogisticRegression

    table = known.table
    age = table["age"].fillna(table["age"].median()).to_numpy() / 100
    x = np.stack([table["set"] == "nih64", table["view"] == "AP", table["sex"] == "M", age, age ** 2], 1).astype(float)
    train = (table["part"] != "val").to_numpy() & table["set"].isin(SETS).to_numpy()
    out = np.zeros((len(rows), len(labels)))
    for j, name in enumerate(labels):
        y = known.truth[:, TARGETS.index(name)]
        fit = train & ~np.isnan(y)
        if len(np.unique(y[fit])) == 2:
            out[:, j] = LogisticRegression(max_iter=1000).fit(x[fit], y[fit]).predict_proba(x[rows])[:, 1]
    return out


def tallies(truth: np.ndarray, said: np.ndarray) -> np.ndarray:
    """[..., 3]: said and true, said and not true, true and not said; unknown counts nowhere."""
    known = ~np.isnan(truth)
    true = np.nan_to_num(truth) == 1
    return np.stack([said & true & known, said & ~true & known, ~said & true & known], -1).astype(float)


def f1(counts: np.ndarray) -> np.ndarray:
    return 2 * counts[..., 0] / np.maximum(2 * counts[..., 0] + counts[..., 1] + counts[..., 2], 1e-9)


def report_figures(truth: np.ndarray, said: np.ndarray, blank: np.ndarray, groups: np.ndarray,
                   patients: np.ndarray, labels: list[str]) -> dict:
    """``truth`` [films, labels] with NaN for unknown; ``said`` bool; ``blank`` [labels] what the
    report of zeroed features says. Films without a partner in their group are left out."""
    partners = [np.flatnonzero((groups == g) & (patients != p)) for g, p in zip(groups, patients)]
    usable = np.array([len(p) > 0 for p in partners]) & (~np.isnan(truth)).any(1)
    own = tallies(truth, said)
    other = np.stack([tallies(truth[i][None], said[p]).mean(0) if len(p) else np.zeros_like(own[0])
                      for i, p in enumerate(partners)])
    prior = tallies(truth, np.broadcast_to(blank, said.shape))
    rows = np.flatnonzero(usable)
    own, other, prior, truth, patients = own[rows], other[rows], prior[rows], truth[rows], patients[rows]
    enough = (truth == 1).sum(0) >= FEWEST

    def figures(sample: np.ndarray) -> np.ndarray:
        """[macro, micro] x [own, other, prior]"""
        sums = [kind[sample].sum(0) for kind in (own, other, prior)]
        return np.array([[f1(s)[enough].mean() for s in sums], [f1(s.sum(0)) for s in sums]])

    everything = np.arange(len(rows))
    point = figures(everything)
    drawn = np.stack([figures(s) for s in resamples(patients)])
    out: dict = {"films": len(rows), "patients": len(np.unique(patients)), "macro_labels": [
        name for name, ok in zip(labels, enough) if ok]}
    for i, average in enumerate(("macro", "micro")):
        out[average] = {
            name: {"value": round(float(get(point[i])), 3), "interval": interval([get(d[i]) for d in drawn])}
            for name, get in (("own", lambda v: v[0]), ("other", lambda v: v[1]), ("zeroed", lambda v: v[2]),
                              ("difference", lambda v: v[0] - v[1]))}
    samples = resamples(patients)
    out["labels"] = {}
    for j, name in enumerate(labels):
        known = ~np.isnan(truth[:, j])
        gap = [f1(own[s, j].sum(0)) - f1(other[s, j].sum(0)) for s in samples]
        out["labels"][name] = {
            "known": int(known.sum()), "positives": int((truth[:, j] == 1).sum()),
            "said": int(own[:, j, :2].sum()), "own": round(float(f1(own[:, j].sum(0))), 3),
            "other": round(float(f1(other[:, j].sum(0))), 3),
            "difference": round(float(f1(own[:, j].sum(0)) - f1(other[:, j].sum(0))), 3),
            "interval": interval(gap)}
    return out


def scored_rows(known: films.Films, part: str) -> np.ndarray:
    """Films of a part with at least one finding known: the others cannot be scored."""
    rows = known.rows(part)
    return rows[(~np.isnan(known.truth[rows][:, 1:len(FINDINGS)])).any(1)]


def digest(places: Places) -> str:
    manifest = json.loads((places.bundle / "manifest.json").read_text())
    model = {k: v["sha256"] for k, v in manifest["files"].items() if k != "README.md"}
    return hashlib.sha256(json.dumps(model, sort_keys=True).encode()).hexdigest()[:16]


def written(places: Places, part: str) -> dict:
    """Features' logits and greedy reports of every film of a part, kept per bundle."""
    known = films.load(places)
    rows = scored_rows(known, part)
    target = places.cached(f"reports.{part}.{digest(places)}.json")
    if target.exists():
        return json.loads(target.read_text())
    reference.run(places)
    bundle = reference.Bundle(places.cached("reference"))
    pixels = np.load(places.cached(prepare.PIXELS), mmap_mode="r")
    head = encoder_head(places)
    logits, reports, started = [], [], time.time()
    for start in range(0, len(rows), TOGETHER):
        x = pixels[rows[start:start + TOGETHER]].astype(np.float32)[:, None]
        feature, _ = bundle.features(x)
        pooled = np.concatenate([feature[:, 0], feature[:, 1:].mean(1)], 1)
        logits += (pooled @ head[0].T + head[1]).tolist()
        reports += [bundle.prompt.decode(a) for a in bundle.greedy(feature)[0]]
        print(f"evaluate: {start + len(x)} of {len(rows)} films, {time.time() - started:.0f} s", flush=True)
    blank = bundle.greedy(np.zeros((1, FEATURE_TOKENS, WIDTH), np.float32))[0][0]
    out = {"ids": known.table["id"].iloc[rows].tolist(), "logits": logits, "reports": reports,
           "zeroed": bundle.prompt.decode(blank)}
    target.write_text(json.dumps(out))
    return out


def encoder_head(places: Places) -> tuple[np.ndarray, np.ndarray]:
    """All targets, auxiliary ones included; the bundle's findings_logits are its first rows."""
    from .features import trained_encoder

    head = trained_encoder(places).head
    return head.weight.detach().numpy(), head.bias.detach().numpy()


def run(places: Places, part: str = "val") -> None:
    known = films.load(places)
    rows = scored_rows(known, part)
    data = written(places, part)
    wanted = [n for n in TARGETS if n not in ("Nodule", "Mass", "TB")]
    logits = np.array(data["logits"])[:, [TARGETS.index(n) for n in wanted]]
    said, reader = labeler.heard(data["reports"] + [data["zeroed"]], places.chatxray)
    labels = [n for n in FINDINGS if n != "No Finding"]

    def matrix(names: list[str]) -> tuple[np.ndarray, np.ndarray]:
        return (np.array([[film.get(n, False) for n in names] for film in said[:-1]]),
                np.array([said[-1].get(n, False) for n in names]))

    table = known.table.iloc[rows]
    groups, patients = (table["set"] + " " + table["view"]).to_numpy(), table["patient"].to_numpy()
    own, blank = matrix(labels)
    truth = known.truth[rows]
    columns = [TARGETS.index(n) for n in labels]
    normal = matrix(["No Finding"])
    inside = np.isin(table["set"], SETS)
    figures = {
        "part": part, "bundle": digest(places), "labeler": reader,
        "encoder": encoder_figures(known, rows, logits, wanted),
        "trivial": encoder_figures(known, rows, trivial_scores(known, rows, wanted), wanted),
        "reports": report_figures(truth[:, columns], own, blank, groups, patients, labels),
        "reports_nih": report_figures(truth[inside][:, columns], own[inside], blank, groups[inside],
                                      patients[inside], labels),
        "no_finding": report_figures(truth[:, [0]], normal[0], normal[1], groups, patients, ["No Finding"])["labels"],
        "zeroed_report": data["zeroed"], "films": len(rows), "different_reports": len(set(data["reports"])),
        "words": round(float(np.mean([len(r.split()) for r in data["reports"]])), 1),
    }
    places.cached(f"figures.{part}.json").write_text(json.dumps(figures, indent=1))
    encoder, reports = figures["encoder"], figures["reports"]
    print(f"evaluate: {part}, read by {reader}")
    print(f"  encoder within-set macro AUROC {encoder['macro']} {encoder['interval']} over {encoder['count']} labels; "
          f"trivial {figures['trivial']['macro']}")
    for name, v in encoder["labels"].items():
        print(f"    {name}: {v['auroc']} {v['interval']} ({v['positives']} positives)")
    for key in ("reports", "reports_nih"):
        for average in ("macro", "micro"):
            print(f"  {key} {average} F1 " + ", ".join(
                f"{k} {v['value']} {v['interval']}" for k, v in figures[key][average].items()))
    for name, v in (reports["labels"] | figures["no_finding"]).items():
        print(f"    {name}: {v}")
    print(f"  zeroed features: {data['zeroed']!r}; {figures['different_reports']} different reports")
