"""pydicom's answer for lut_test.go: apply_modality_lut and apply_voi_lut, or apply_color_lut, brought to 0..1.

Standard input: a JSON list of cases {header, values, signed}; header maps keywords to values, a sequence is a list of
such maps. Standard output: for each case the list of grays. Needs python3-pydicom and python3-numpy.
"""

import json
import sys
import warnings

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixel_data_handlers.util import apply_color_lut, apply_modality_lut, apply_voi_lut

warnings.simplefilter("ignore")
BINARY = {"LUTData", "RedPaletteColorLookupTableData", "GreenPaletteColorLookupTableData", "BluePaletteColorLookupTableData"}


def dataset(header):
    ds = Dataset()
    ds.is_little_endian, ds.is_implicit_VR = True, False
    for keyword, value in header.items():
        if keyword.endswith("Sequence"):
            setattr(ds, keyword, [dataset(item) for item in value])
        elif keyword in BINARY and keyword != "LUTData":
            setattr(ds, keyword, np.array(value, "<u2").tobytes())
        else:
            setattr(ds, keyword, value)
    return ds


def gray(case):
    ds = dataset(case["header"])
    values = np.array(case["values"], np.int16 if case["signed"] else np.uint16)
    if ds.PhotometricInterpretation == "PALETTE COLOR":
        rgb = apply_color_lut(values[None], ds)[0].astype(float) / 65535
        return rgb @ [0.299, 0.587, 0.114]
    output = apply_modality_lut(values, ds)
    if "VOILUTSequence" in ds:
        out = apply_voi_lut(np.asarray(output).astype(int), ds) / (2.0 ** ds.VOILUTSequence[0].LUTDescriptor[2] - 1)
    else:
        ends = np.concatenate([np.asarray(output, float), [-1e12, 1e12]])
        out = apply_voi_lut(ends, ds)
        out = ((out - out[-2]) / (out[-1] - out[-2]))[:-2]
    return 1 - out if ds.PhotometricInterpretation == "MONOCHROME1" else out


print(json.dumps([[float(v) for v in gray(case)] for case in json.load(sys.stdin)]))
