"""Reads DICOM files with pydicom and writes every attribute as a line of JSON: [file number, path, VR, values]."""

import json
import sys

import pydicom
from pydicom.multival import MultiValue


def text(value):
    """The value as written: numbers keep their digits."""
    original = getattr(value, "original_string", None)
    return original if isinstance(original, str) else str(value)


def lines(number, dataset, path):
    for element in dataset:
        here = f"{path}{element.tag.group:04X}{element.tag.elem:04X}"
        if element.VR == "SQ":
            print(json.dumps([number, here, "SQ", [str(len(element.value))]]))
            for i, item in enumerate(element.value):
                lines(number, item, f"{here}[{i}].")
            continue
        value = element.value
        values = list(value) if isinstance(value, MultiValue) else [] if element.is_empty else [value]
        print(json.dumps([number, here, element.VR, [text(v) for v in values]]))


for number, name in enumerate(sys.argv[1:]):
    lines(number, pydicom.dcmread(name), "")
