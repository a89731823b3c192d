"""Drives a DICOMweb service with the PyPI package dicomweb-client. A line of JSON for each operation: its name, and what went wrong.

    dicomweb.py ROOT MANIFEST    ROOT is the service's /dicom-web; MANIFEST is from objects.py
"""

import base64
import email
import io
import json
import pathlib
import sys

import numpy
import pydicom
from dicomweb_client.api import DICOMwebClient
from PIL import Image

root, manifest = sys.argv[1], json.loads(pathlib.Path(sys.argv[2]).read_text())
client = DICOMwebClient(root)
sent = {name: pydicom.dcmread(o["file"]) for name, o in manifest.items()}
where = {name: (o["study"], o["series"], o["sop"]) for name, o in manifest.items()}
frames = {name: [base64.b64decode(f) for f in o["frames"]] for name, o in manifest.items()}
study_a, study_b = manifest["a1"]["study"], manifest["rle"]["study"]
operations = []


def operation(name):
    return lambda f: operations.append((name, f))


def same(got, want):
    assert got == want, f"got {str(got)[:300]}, want {str(want)[:300]}"


def uids(found, keyword="StudyInstanceUID"):
    return [getattr(pydicom.Dataset.from_json(f), keyword) for f in found]


def stored(answer, count):
    same(len(answer.ReferencedSOPSequence), count)
    same("FailedSOPSequence" in answer, False)


def unchanged(got, name):
    same(got, sent[name])
    same(got.file_meta.TransferSyntaxUID, sent[name].file_meta.TransferSyntaxUID)


def picture(encoded, kind, name, window, frame=1):
    """Compares with the linear function of PS3.3 section C.11.2.1.2.1; PNG keeps every gray."""
    p = Image.open(io.BytesIO(encoded))
    size = manifest[name]["columns"], manifest[name]["rows"]
    same((p.format, p.size), (kind, size))
    center, width = window
    samples = numpy.frombuffer(frames[name][frame - 1], "<u2").reshape(size[::-1])
    want = numpy.clip((samples - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    off = numpy.abs(numpy.asarray(p.convert("L"), float) - want).max()
    assert off <= {"PNG": 1, "JPEG": 4}[kind], f"the picture is off by {off} grays"


def shown(window):
    return {"window": "{},{},linear".format(*window)}


@operation("store one")
def _():
    stored(client.store_instances([sent["a1"]]), 1)


@operation("store several, to a study")
def _():
    stored(client.store_instances([sent["a2"], sent["frames"]], study_instance_uid=study_a), 2)


@operation("store several studies, one instance a duplicate")
def _():
    answer = client.store_instances([sent["a1"], sent["rle"]])
    stored(answer, 2)
    same(sum("WarningReason" in i for i in answer.ReferencedSOPSequence), 1)


@operation("store chunked")
def _():
    client.set_chunk_size(1000)
    stored(client.store_instances(list(sent.values())), 4)
    client.set_chunk_size(10**6)


@operation("store to another study")
def _():
    try:
        client.store_instances([sent["rle"]], study_instance_uid=study_a)
    except Exception as e:
        same(e.response.status_code, 409)
    else:
        raise AssertionError("an instance of another study is taken")


@operation("search studies")
def _():
    same(sorted(uids(client.search_for_studies())), sorted([study_a, study_b]))


@operation("search studies by name")
def _():
    same(uids(client.search_for_studies(search_filters={"PatientName": "m\u00fcller*"})), [study_a])
    same(uids(client.search_for_studies(search_filters={"PatientName": "Yamada^Tarou"})), [study_b])


@operation("search studies by date, modality and tag")
def _():
    same(len(client.search_for_studies(search_filters={"StudyDate": "20250101-20250103"})), 2)
    same(client.search_for_studies(search_filters={"StudyDate": "20250103-"}), [])
    same(uids(client.search_for_studies(search_filters={"ModalitiesInStudy": "OT"})), [study_a])
    same(uids(client.search_for_studies(search_filters={"00100020": "B"})), [study_b])


@operation("search studies by a list of UIDs")
def _():
    same(len(client.search_for_studies(search_filters={"StudyInstanceUID": f"{study_a},{study_b},1.2.3"})), 2)


@operation("search studies with fields and fuzzy matching")
def _():
    found = client.search_for_studies(fuzzymatching=True, fields=["StudyDescription", "00100020"], search_filters={"PatientName": "yamada^tarou"})
    same([pydicom.Dataset.from_json(f).PatientID for f in found], ["B"])


@operation("search studies by a fuzzy name")
def _():
    same(uids(client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": "Muller"})), [study_a])
    same(uids(client.search_for_studies(fuzzymatching=True, search_filters={"PatientName": "tarou"})), [study_b])


@operation("search with limit and offset")
def _():
    pages = [uids(client.search_for_studies(limit=1, offset=i)) for i in range(3)]
    same(sorted(pages[0] + pages[1]), sorted([study_a, study_b]))
    same(pages[2], [])
    same(len(client.search_for_studies(limit=1, get_remaining=True)), 2)


@operation("search series")
def _():
    same(len(client.search_for_series()), 3)
    same(uids(client.search_for_series(study_a, search_filters={"Modality": "OT"}), "SeriesInstanceUID"), [manifest["frames"]["series"]])


@operation("search instances")
def _():
    same(len(client.search_for_instances()), 4)
    same(len(client.search_for_instances(study_a)), 3)
    same(uids(client.search_for_instances(study_a, manifest["a1"]["series"], search_filters={"InstanceNumber": 2}), "SOPInstanceUID"), [manifest["a2"]["sop"]])


@operation("search finds nothing")
def _():
    same(client.search_for_studies(search_filters={"PatientID": "nobody"}), [])


@operation("retrieve a study")
def _():
    got = {i.SOPInstanceUID: i for i in client.retrieve_study(study_a)}
    same(len(got), 3)
    for name in ("a1", "a2", "frames"):
        unchanged(got[manifest[name]["sop"]], name)
    same(len(list(client.iter_study(study_a))), 3)


@operation("retrieve a series")
def _():
    same(len(client.retrieve_series(*where["a1"][:2])), 2)


@operation("retrieve an instance")
def _():
    unchanged(client.retrieve_instance(*where["a1"]), "a1")


@operation("retrieve an instance as it is stored")
def _():
    unchanged(client.retrieve_instance(*where["rle"], media_types=(("application/dicom", "*"),)), "rle")


@operation("retrieve an instance uncompressed")
def _():
    got = client.retrieve_instance(*where["rle"], media_types=(("application/dicom", "1.2.840.10008.1.2.1"),))
    same(got.file_meta.TransferSyntaxUID, "1.2.840.10008.1.2.1")
    same(got.PixelData, frames["rle"][0])


@operation("metadata")
def _():
    same(len(client.retrieve_study_metadata(study_a)), 3)
    same(len(client.retrieve_series_metadata(*where["a1"][:2])), 2)
    got = pydicom.Dataset.from_json(client.retrieve_instance_metadata(*where["rle"]), bulk_data_uri_handler=lambda uri: None)
    want = sent["rle"]
    for e in want:
        if e.keyword not in ("PixelData", "SpecificCharacterSet"):
            same(got[e.tag], e)
    same(got.SpecificCharacterSet, "ISO_IR 192")


@operation("bulk data")
def _():
    element = client.retrieve_instance_metadata(*where["a1"])["00991001"]
    same(client.retrieve_bulkdata(element["BulkDataURI"]), [base64.b64decode(manifest["a1"]["bulk"])])
    same(b"".join(client.iter_bulkdata(element["BulkDataURI"], media_types=("application/octet-stream",))), base64.b64decode(manifest["a1"]["bulk"]))


@operation("bulk data of pixels")
def _():
    element = client.retrieve_instance_metadata(*where["a1"])["7FE00010"]
    same(client.retrieve_bulkdata(element["BulkDataURI"]), [frames["a1"][0]])


@operation("frames")
def _():
    same(client.retrieve_instance_frames(*where["frames"], [3, 1]), [frames["frames"][2], frames["frames"][0]])
    same(list(client.iter_instance_frames(*where["frames"], [2])), [frames["frames"][1]])


@operation("frames of a compressed instance")
def _():
    same(client.retrieve_instance_frames(*where["rle"], [1], media_types=(("application/octet-stream", "1.2.840.10008.1.2.1"),)), frames["rle"])
    same(client.retrieve_instance_frames(*where["rle"], [1], media_types=(("image/dicom-rle", "1.2.840.10008.1.2.5"),)),
         list(pydicom.encaps.generate_frames(sent["rle"].PixelData, number_of_frames=1)))


@operation("parts are labelled as what they are")
def _():
    for path, accept, want in (
        ("", "application/dicom; transfer-syntax=*", ["application/dicom; transfer-syntax=1.2.840.10008.1.2.5"]),
        ("", "application/dicom", ["application/dicom; transfer-syntax=1.2.840.10008.1.2.1"]),
        ("/frames/1", "application/octet-stream; transfer-syntax=*", ["image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5"]),
        ("/frames/1", "application/octet-stream", ["application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1"]),
    ):
        kind, _, syntax = accept.partition(";")
        url = "{}/studies/{}/series/{}/instances/{}{}".format(root, *where["rle"], path)
        answer = client._session.get(url, headers={"Accept": f'multipart/related; type="{kind}";{syntax}'})
        message = email.message_from_bytes(b"Content-Type: " + answer.headers["Content-Type"].encode() + b"\r\n\r\n" + answer.content)
        same([p["Content-Type"] for p in message.get_payload()], want)


@operation("rendered instance")
def _():
    wide, narrow = (2048, 4096), (1000, 100)
    picture(client.retrieve_instance_rendered(*where["a1"], params=shown(wide)), "JPEG", "a1", wide)
    picture(client.retrieve_instance_rendered(*where["a1"], media_types=("image/png",), params=shown(narrow)), "PNG", "a1", narrow)
    picture(client.retrieve_instance_rendered(*where["rle"], media_types=("image/jpeg",), params={"quality": 90} | shown(wide)), "JPEG", "rle", wide)


@operation("rendered frames")
def _():
    narrow = (1000, 100)
    for frame in (1, 2, 3):
        got = client.retrieve_instance_frames_rendered(*where["frames"], [frame], media_types=("image/png",), params=shown(narrow))
        picture(got, "PNG", "frames", narrow, frame)


@operation("delete an instance")
def _():
    client.delete_instance(*where["a2"])
    same(len(client.search_for_instances(study_a)), 2)


@operation("delete a series")
def _():
    client.delete_series(*where["frames"][:2])
    same(len(client.search_for_series(study_a)), 1)


@operation("delete a study")
def _():
    client.delete_study(study_b)
    same(uids(client.search_for_studies()), [study_a])


for name, f in operations:
    try:
        f()
        error = ""
    except Exception as e:
        error = f"{type(e).__name__}: {e} {getattr(getattr(e, 'response', None), 'text', '')[:300]}"
    print(json.dumps({"operation": name, "error": error}), flush=True)
