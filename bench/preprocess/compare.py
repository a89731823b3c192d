"""File in memory to tensor, Go and Python side by side in one run (see run.sh). Prints a table.

The file is made here: a DX object of 2500 rows and 2048 columns, 12 bits in 16, with noise, window 2048 / 4000.

usual   pydicom + apply_voi_lut + min-max to 8 bits + Pillow's bicubic, as most code does it
lean    pydicom + the window in float32 by numpy + Pillow's filter in float mode: the least that Python can do for
        the same tensor; its values are compared with ours

Times are processor times, so that other work on the machine does not count; the least of all rounds is printed.
"""

import io
import os
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import numpy as np  # noqa: E402
import PIL  # noqa: E402
import pydicom  # noqa: E402
from PIL import Image  # noqa: E402
from pydicom.dataset import FileDataset, FileMetaDataset  # noqa: E402
from pydicom.pixel_data_handlers.util import apply_voi_lut  # noqa: E402
from pydicom.uid import ExplicitVRLittleEndian, generate_uid  # noqa: E402

ROWS, COLUMNS, CENTER, WIDTH, MEAN, STD = 2500, 2048, 2048.0, 4000.0, 0.5, 0.25
COLUMNS_OF_TABLE = [("448x448x3-bicubic", 448, 3, Image.BICUBIC), ("448x448x3-bilinear", 448, 3, Image.BILINEAR),
                    ("320x320x1-bicubic", 320, 1, Image.BICUBIC)]
ROUNDS, REPEATS = 5, 5


def make(path):
    y, x = np.mgrid[0:ROWS, 0:COLUMNS].astype(np.float32)
    body = 2600 - 1500 * np.exp(-(((x - 620) / 330) ** 2 + ((y - 1150) / 700) ** 2))
    body -= 1500 * np.exp(-(((x - 1430) / 330) ** 2 + ((y - 1150) / 700) ** 2))
    body += 300 * np.sin(y / 40) + np.random.default_rng(1).normal(0, 60, body.shape)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID, meta.MediaStorageSOPClassUID = ExplicitVRLittleEndian, "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    ds = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    ds.is_little_endian, ds.is_implicit_VR = True, False
    ds.SOPClassUID, ds.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.Modality = generate_uid(), generate_uid(), "DX"
    ds.Rows, ds.Columns, ds.SamplesPerPixel, ds.PhotometricInterpretation = ROWS, COLUMNS, 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ds.WindowCenter, ds.WindowWidth = f"{CENTER:g}", f"{WIDTH:g}"
    ds.PixelData = np.clip(body, 0, 4095).astype("<u2").tobytes()
    ds.save_as(str(path), write_like_original=False)


def usual(data, side, channels, kernel):
    ds = pydicom.dcmread(io.BytesIO(data))
    v = apply_voi_lut(ds.pixel_array, ds).astype(np.float32)
    v = (v - v.min()) / (v.max() - v.min())
    image = Image.fromarray((v * 255).astype(np.uint8))
    if channels == 3:
        image = image.convert("RGB")
    x = (np.asarray(image.resize((side, side), kernel), np.float32) / 255 - MEAN) / STD
    return np.ascontiguousarray(x.transpose(2, 0, 1)) if channels == 3 else x[None]


def lean(data, side, channels, kernel):
    ds = pydicom.dcmread(io.BytesIO(data))
    v = ds.pixel_array.astype(np.float32)
    v = np.clip((v - (CENTER - 0.5)) / (WIDTH - 1) + 0.5, 0, 1)
    x = (np.asarray(Image.fromarray(v, mode="F").resize((side, side), kernel)) - MEAN) / STD
    return np.repeat(x[None], channels, axis=0)


def best(function, *arguments):
    shortest = float("inf")
    for _ in range(REPEATS):
        start = time.process_time()
        function(*arguments)
        shortest = min(shortest, time.process_time() - start)
    return shortest * 1000


def main():
    binary, folder = Path(sys.argv[1]), Path(sys.argv[2])
    warnings.simplefilter("ignore")
    path = folder / "dx.dcm"
    make(path)
    data = path.read_bytes()
    env = dict(os.environ, BENCH_FILE=str(path), BENCH_TENSORS=str(folder), GOMAXPROCS="1")
    shortest = {}
    for _ in range(ROUNDS):
        out = subprocess.run([binary, "-test.run=^$", "-test.bench=FileToTensor", f"-test.benchtime={2 * REPEATS}x"],
                             env=env, check=True, capture_output=True, text=True).stdout
        for name, ms in re.findall(r"FileToTensor/(\S+?)(?:-\d+)?\s.*?([\d.]+) best-ms", out):
            shortest[name, "go"] = min(float(ms), shortest.get((name, "go"), 1e9))
        for name, *arguments in COLUMNS_OF_TABLE:
            for way in (usual, lean):
                ms = best(way, data, *arguments)
                shortest[name, way.__name__] = min(ms, shortest.get((name, way.__name__), 1e9))
    print(f"{ROWS}x{COLUMNS}, 12 bits in 16, processor time of one thread, best of {ROUNDS} rounds; "
          f"pydicom {pydicom.__version__}, Pillow {PIL.__version__}\n")
    print("| tensor | Go ms | usual Python ms | Go / usual | lean Python ms | Go / lean | largest difference to lean |")
    print("|---|---|---|---|---|---|---|")
    failed = False
    for name, *arguments in COLUMNS_OF_TABLE:
        ours = np.fromfile(folder / name, "<f4")
        off = np.abs(ours - lean(data, *arguments).ravel()).max()
        go, py, le = (shortest[name, k] for k in ("go", "usual", "lean"))
        failed |= off > 1e-4
        print(f"| {name} | {go:.1f} | {py:.1f} | 1/{py / go:.1f} | {le:.1f} | 1/{le / go:.1f} | {off:.1g} |")
    if failed:
        sys.exit("the tensors differ: the times do not count")


main()
