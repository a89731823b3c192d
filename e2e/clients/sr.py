"""Reads what the service has written about a study with highdicom and pydicom. A line of JSON for each operation.

    sr.py ROOT STUDY    ROOT is the service's /dicom-web; the study is reported
"""

import json
import sys

import highdicom
import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.sr.codedict import codes

root, study = sys.argv[1:]
record = requests.get(f"{root}/studies/{study}/reading", timeout=30).json()["record"]
reading = record["reading"]
client = DICOMwebClient(root)
files = {d.SOPInstanceUID: d for d in client.retrieve_study(study)}
findings = next(d for d in files.values() if d.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.34")
narrative = next(d for d in files.values() if d.SOPClassUID == "1.2.840.10008.5.1.4.1.1.88.11")
images = [(study, i["series_instance_uid"], i["sop_instance_uid"], i["sop_class_uid"]) for i in reading["inputs"]]
models = {m["00080018"]["Value"][0]: m for m in client.retrieve_study_metadata(study)}

# What the reading says, by label.
said = {f["label"]: f for f in reading["findings"] if f["presence"] in ("present", "absent", "undetermined")}
none = said.pop("No Finding", None)
presences = {
    "present": codes.SCT.Present,
    "absent": codes.SCT.Absent,
    "undetermined": pydicom.sr.coding.Code("373068000", "SCT", "Undetermined"),
}
operations = []


def operation(name):
    return lambda f: operations.append((name, f))


def same(got, want):
    assert got == want, f"got {str(got)[:600]}, want {str(want)[:600]}"


def check_report(dataset):
    document = highdicom.sr.Comprehensive3DSR.from_dataset(dataset)
    same(document.get_evidence(), images)
    report = document.content
    assert isinstance(report, highdicom.sr.MeasurementReport), type(report)
    groups = report.get_image_measurement_groups()
    same(sorted(g.tracking_identifier for g in groups), sorted(said))
    same(len({g.tracking_uid for g in groups}), len(groups))
    for g in groups:
        f = said[g.tracking_identifier]
        assert g.finding_type is not None and g.finding_type.scheme_designator in ("SCT", "DCM", "99CHATXRAY"), g.finding_type
        same([(e.name.meaning, e.value) for e in g.get_qualitative_evaluations()], [("Presence", presences[f["presence"]])])
        same([i.referenced_sop_instance_uid for i in g.source_images], [i[2] for i in images])
        same(g.get_measurements(), [])
        texts = [i.TextValue for i in g[0].ContentSequence if i.ValueType == "TEXT" and i.name.meaning == "Narrative Summary"]
        same(texts, [" ".join(reading["sentences"][n]["text"] for n in f["sentences"])])


@operation("the study has the radiograph and both reports")
def _():
    same(len(files), len(images) + 2)
    assert said, "the reading says nothing of any finding"


@operation("highdicom reads the findings: presence, images, sentences, evidence")
def _():
    check_report(findings)


@operation("highdicom reads the findings from the JSON of /metadata")
def _():
    d = pydicom.Dataset.from_json(models[findings.SOPInstanceUID])
    d.file_meta = findings.file_meta
    check_report(d)


@operation("highdicom reads the qualitative evaluations: the assessment, and a code for each finding")
def _():
    document = highdicom.sr.Comprehensive3DSR.from_dataset(findings)
    [box] = [i for i in document.content[0].ContentSequence if i.ValueType == "CONTAINER" and i.name.meaning == "Qualitative Evaluations"]
    got = [(i.name, i.value) for i in box.ContentSequence if i.ValueType == "CODE"]
    same(got[0][0], codes.DCM.OverallAssessment)
    assert got[0][1].value in ("17621005", "263654008", "371934000"), got[0]
    groups = document.content.get_image_measurement_groups()
    same(sorted((n.value, v.value) for n, v in got[1:]),
         sorted((g.finding_type.value, presences[said[g.tracking_identifier]["presence"]].value) for g in groups))


@operation("highdicom finds the images of the evidence sequence by series")
def _():
    document = highdicom.sr.Comprehensive3DSR.from_dataset(findings)
    same(document.get_evidence_series(), sorted({i[:2] for i in images}))
    same(len(document.CurrentRequestedProcedureEvidenceSequence), 1)


@operation("pydicom reads the draft report: every sentence, and the images")
def _():
    sections = [i for i in narrative.ContentSequence if i.ValueType == "CONTAINER"]
    texts = [i.TextValue for s in sections for i in s.ContentSequence if i.ValueType == "TEXT"]
    for s in reading["sentences"]:
        assert any(s["text"] in t for t in texts), s["text"]
    [evidence] = narrative.CurrentRequestedProcedureEvidenceSequence
    same([(evidence.StudyInstanceUID, s.SeriesInstanceUID, r.ReferencedSOPInstanceUID, r.ReferencedSOPClassUID)
          for s in evidence.ReferencedSeriesSequence for r in s.ReferencedSOPSequence], images)


@operation("pydicom reads the JSON of every instance, and it says what the file says")
def _():
    same(sorted(models), sorted(files))
    for d in client.retrieve_study(study):  # anew: highdicom has made classes of its own of the others' items
        uid = d.SOPInstanceUID
        got = pydicom.Dataset.from_json(models[uid], bulk_data_uri_handler=lambda uri: None)
        want = {e.tag: e for e in d}
        missing = [str(t) for t in want if t not in got and t != 0x7FE00010]
        same((missing, [str(e.tag) for e in got if e.tag not in want]), ([], []))
        for e in got:
            if e.tag != 0x7FE00010:
                same(e, want[e.tag])


for name, f in operations:
    try:
        f()
        error = ""
    except Exception as e:
        error = f"{type(e).__name__}: {e}"
    print(json.dumps({"operation": name, "error": error}), flush=True)
