"""Target texts: a grammar over labels and masks.

Every report goes through the same topics in the same order, one sentence each; a topic whose label
is unknown for the film is left out, because "not said" is not "absent". A sentence is a *frame* that
does not depend on the image ("The heart is") and an *ending* that does ("enlarged."). All endings of
one polarity begin with the same word, so that saying present or absent is one decision of the
language model at one token, never spread over many paraphrases.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field

from .settings import IMPRESSION

Known = Mapping[str, bool]  # label or auxiliary finding -> present; a name that is missing is unknown


@dataclass(frozen=True)
class Frame:
    """Text common to both polarities, then the endings of each."""

    lead: str
    present: tuple[str, ...]
    absent: tuple[str, ...]
    share: int  # how often it is used, beside the topic's other frames


def frame(lead: str, present: str, absent: str, share: int = 3) -> Frame:
    """Endings are separated by a bar."""
    return Frame(lead, tuple(present.split("|")), tuple(absent.split("|")), share)


@dataclass(frozen=True)
class Topic:
    label: str
    frames: tuple[Frame, ...]


@dataclass
class Facts:
    """What is known of one film. ``where`` gives a place phrase for a finding that a mask outlines,
    ``devices`` the devices that masks outline."""

    known: Known
    where: Mapping[str, str] = field(default_factory=dict)
    devices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Decision:
    """The character at which a label's ending begins, in the text it belongs to."""

    at: int
    label: str
    choice: str  # present, absent; for the impression: normal, pneumonia, abnormal


# {place} is a place phrase or nothing; {opacities}, {lesion} follow from further labels.
TOPICS = (
    Topic("Lung Opacity", (
        frame("The lungs", "show {opacities}{place}.|show patchy {opacities}{place}.|show scattered {opacities}{place}.",
              "are clear, without focal opacity.|are clear, with no airspace opacity."),
        frame("There is", "patchy airspace opacity{place}.|patchy opacity{place}.|patchy parenchymal opacity{place}.",
              "no focal airspace opacity.|no focal lung opacity.|no parenchymal opacity."),
        frame("Airspace opacity is", "present{place}.", "not seen.|not identified."),
    )),
    Topic("Consolidation", (
        frame("There is", "consolidation{place}.",
              "no consolidation.|no focal consolidation.|no lobar consolidation."),
        frame("Consolidation is", "present{place}.", "not seen.|not identified.|not evident."),
    )),
    Topic("Edema", (
        frame("There is", "pulmonary edema.|pulmonary edema with vascular congestion.",
              "no pulmonary edema.|no interstitial edema.|no edema."),
        frame("Pulmonary edema is", "present.", "not seen.|not present."),
        frame("The pulmonary vasculature is", "congested, with pulmonary edema.|congested, with interstitial edema.",
              "normal, without pulmonary edema.|normal, without edema.", share=1),
    )),
    Topic("Atelectasis", (
        frame("There is", "atelectasis.|atelectasis with volume loss.", "no atelectasis.|no collapse or atelectasis."),
        frame("Atelectasis is", "present.", "not seen.|not identified."),
    )),
    Topic("Lung Lesion", (
        frame("There is", "a pulmonary {lesion}.|a lung {lesion}.", "no lung nodule or mass.|no pulmonary nodule or mass."),
        frame("A lung nodule or mass is", "present.", "not seen.|not identified.", share=1),
    )),
    Topic("Pneumothorax", (
        frame("There is", "a pneumothorax.", "no pneumothorax."),
        frame("A pneumothorax is", "present.", "not seen.|not identified.", share=2),
    )),
    Topic("Pleural Effusion", (
        frame("There is", "a pleural effusion{place}.", "no pleural effusion.|no evidence of pleural effusion."),
        frame("Pleural effusion is", "present{place}.", "not seen.|not identified."),
        frame("The costophrenic angles are", "blunted by pleural effusion.|blunted, with pleural effusion.",
              "sharp, without pleural effusion.|sharp, with no effusion.", share=1),
    )),
    Topic("Pleural Other", (
        frame("There is", "pleural thickening.", "no pleural thickening."),
        frame("Pleural thickening is", "present.", "not seen.|not identified."),
    )),
    Topic("Cardiomegaly", (
        frame("The heart is", "enlarged.|enlarged in its transverse diameter.", "normal in size.|normal in size and shape."),
        frame("The cardiac silhouette is", "enlarged.", "normal in size.|normal."),
        frame("There is", "cardiomegaly.", "no cardiomegaly."),
    )),
)

#: Said only where they are labelled; they have no slot in the closed list.
ASIDES = {
    "Emphysema": ("The lungs are hyperinflated with emphysema.", "Emphysematous changes are seen."),
    "Fibrosis": ("There is pulmonary fibrosis.", "Pulmonary fibrosis is seen."),
}

DEVICES = {
    "endotracheal_tube": ("An endotracheal tube is in place.",),
    "central_venous_line": ("A central venous line is in place.", "A central venous catheter is in place."),
    "nasogastric_tube": ("A nasogastric tube is in place.", "An enteric tube is in place."),
    "tubings": ("Tubes overlie the chest.",),
    "monitoring_probes": ("Monitoring leads overlie the chest.",),
}

IMPRESSIONS = {
    "normal": ("Normal chest radiograph.", "Normal chest, no acute cardiopulmonary disease.",
               "Normal chest, no acute cardiopulmonary abnormality."),
    "pneumonia": ("Pneumonia.", "Pneumonia is present."),
    "abnormal": ("Abnormal chest radiograph.", "Abnormal chest with findings as above."),
    "abnormal, no pneumonia": ("Abnormal chest radiograph, no pneumonia.", "Abnormal chest without pneumonia."),
}


def conclusion(known: Known) -> str | None:
    """Which impression follows; None where the labels do not say."""
    if known.get("No Finding"):
        return "normal"
    if known.get("Pneumonia"):
        return "pneumonia"
    if known.get("No Finding") is False or any(known.get(t.label) for t in TOPICS):
        return "abnormal, no pneumonia" if known.get("Pneumonia") is False else "abnormal"
    return None


def compose(facts: Facts, rng: random.Random) -> tuple[str, list[Decision]]:
    """One report and where its decisions are. Empty if nothing is known."""
    sentences: list[tuple[str, Decision | None]] = []
    words = {
        "opacities": "infiltrates" if facts.known.get("Infiltration") and rng.random() < 0.5 else "opacities",
        "lesion": "mass" if facts.known.get("Mass") else "nodule",
    }
    for topic in TOPICS:
        state = facts.known.get(topic.label)
        if state is not None:
            chosen = rng.choices(topic.frames, [f.share for f in topic.frames])[0]
            ending = rng.choice(chosen.present if state else chosen.absent)
            place = facts.where.get(topic.label, "") if state else ""
            sentences.append((f"{chosen.lead} {ending.format(place=place, **words)}",
                              Decision(len(chosen.lead), topic.label, "present" if state else "absent")))
        if topic.label == "Lung Lesion":
            sentences += [(rng.choice(ASIDES[name]), None) for name in ASIDES if facts.known.get(name)]
    sentences += [(rng.choice(DEVICES[name]), None) for name in sorted(facts.devices)]

    text, decisions = "", []
    for sentence, decision in sentences:
        start = len(text) + 1 if text else 0
        text = f"{text} {sentence}" if text else sentence
        if decision:
            decisions.append(Decision(start + decision.at, decision.label, decision.choice))
    if (verdict := conclusion(facts.known)) is not None:
        text += f"\n{IMPRESSION}" if text else IMPRESSION
        decisions.append(Decision(len(text), "Impression", verdict.split(",")[0]))
        text += " " + rng.choice(IMPRESSIONS[verdict])
    return text, decisions


def parse(text: str) -> dict[str, bool]:
    """What a report in this grammar says, for watching training. Published figures come from the
    service's own labeler, which knows nothing of the grammar."""
    body, _, impression = text.partition(IMPRESSION)
    said: dict[str, bool] = {}
    for sentence in body.replace("\n", " ").split(". "):
        sentence = sentence.strip().rstrip(".") + "."
        for topic in TOPICS:
            for chosen in topic.frames:
                if not sentence.startswith(chosen.lead + " "):
                    continue
                rest = sentence[len(chosen.lead) + 1:]
                for state, endings in ((True, chosen.present), (False, chosen.absent)):
                    for ending in endings:
                        fixed = ending.split("{")[0].rstrip(".")
                        if "{lesion}" in ending:
                            fixed = (fixed + "nodule", fixed + "mass")
                        if fixed and rest.startswith(fixed) and topic.label not in said:
                            said[topic.label] = state
    impression = impression.strip()
    if impression:
        said["No Finding"] = impression.startswith("Normal")
        said["Pneumonia"] = impression.startswith("Pneumonia")
    return said
