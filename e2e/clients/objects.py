"""Writes the objects that the DICOMweb clients store, and manifest.json, which says what is in them. Made by pydicom, so that nothing of
the product has a say in them.

    objects.py FOLDER PREFIX [large]    PREFIX begins every UID; large adds an object of 8.4 MB, which the manifest does not describe
"""

import base64
import json
import pathlib
import sys

import numpy
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, RLELossless

CR = "1.2.840.10008.5.1.4.1.1.1"
MULTI_FRAME_WORDS = "1.2.840.10008.5.1.4.1.1.7.3"


def image(sop_class, study, series, number, frames=1, rows=48, columns=64):
    """A ramp in each frame, another one for each number; not a chest, so that the service reads nothing into it."""
    d = Dataset()
    d.file_meta = FileMetaDataset()
    d.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    d.file_meta.MediaStorageSOPClassUID = sop_class
    d.SOPClassUID = sop_class
    d.StudyInstanceUID, d.SeriesInstanceUID = study, series
    d.SOPInstanceUID = d.file_meta.MediaStorageSOPInstanceUID = f"{series}.{number}"
    d.Modality, d.BodyPartExamined = ("CR", "HAND") if sop_class == CR else ("OT", "HAND")
    d.SeriesNumber, d.InstanceNumber = 1, number
    d.StudyDate, d.StudyTime, d.StudyID = "20250102", "030405", "7"
    d.AccessionNumber, d.ReferringPhysicianName = "A-7", ""
    d.PatientBirthDate, d.PatientSex = "", "O"
    d.Rows, d.Columns, d.SamplesPerPixel = rows, columns, 1
    d.PhotometricInterpretation, d.PixelRepresentation = "MONOCHROME2", 0
    d.BitsAllocated, d.BitsStored, d.HighBit = 16, 12, 11
    if frames > 1:
        d.NumberOfFrames = frames
    steps = numpy.arange(rows * columns, dtype="<u2").reshape(rows, columns)
    d.PixelData = numpy.stack([(steps + 37 * number + 111 * f) & 0x0FFF for f in range(frames)]).astype("<u2").tobytes()
    d["PixelData"].VR = "OW"
    return d


def patient(d, charset, name, identifier):
    d.SpecificCharacterSet, d.PatientName, d.PatientID = charset, name, identifier
    return d


def main(folder, prefix, large=""):
    folder = pathlib.Path(folder)
    a, b = f"{prefix}.1", f"{prefix}.2"
    objects = {
        "a1": patient(image(CR, a, f"{a}.1", 1), "ISO_IR 100", "M\u00fcller^J\u00f6rg", "A"),
        "a2": patient(image(CR, a, f"{a}.1", 2), "ISO_IR 100", "M\u00fcller^J\u00f6rg", "A"),
        "frames": patient(image(MULTI_FRAME_WORDS, a, f"{a}.2", 1, frames=3), "ISO_IR 100", "M\u00fcller^J\u00f6rg", "A"),
        "rle": patient(image(CR, b, f"{b}.1", 1), "ISO_IR 192", "Yamada^Tarou=\u5c71\u7530^\u592a\u90ce", "B"),
    }
    objects["a1"].private_block(0x0099, "CHATXRAY TEST", create=True).add_new(1, "OB", bytes(i % 251 for i in range(10_000)))
    manifest = {}
    for name, d in objects.items():
        size = d.Rows * d.Columns * 2
        native = [d.PixelData[i : i + size] for i in range(0, len(d.PixelData), size)]
        if name == "rle":
            d.compress(RLELossless, generate_instance_uid=False)
        file = folder / f"{name}.dcm"
        d.save_as(file, enforce_file_format=True)
        manifest[name] = {
            "file": str(file), "study": d.StudyInstanceUID, "series": d.SeriesInstanceUID, "sop": d.SOPInstanceUID,
            "rows": d.Rows, "columns": d.Columns, "frames": [base64.b64encode(f).decode() for f in native],
        }
    manifest["a1"]["bulk"] = base64.b64encode(objects["a1"][0x00991001].value).decode()
    if large:
        d = patient(image(CR, f"{prefix}.3", f"{prefix}.3.1", 1, rows=2048, columns=2048), "ISO_IR 192", "Large^One", "C")
        d.save_as(folder / "large.dcm", enforce_file_format=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))


if __name__ == "__main__":
    main(*sys.argv[1:])
