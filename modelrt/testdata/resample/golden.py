"""Values of Pillow's resize in mode F, for resample_test.go.

    /usr/bin/python3 golden.py > golden.json        (python3-pil, python3-numpy)

The picture is a formula that the test repeats: word(x, y) = (37 x + 101 y + 3 x y) mod 4096, gray = word / 4095.
With the argument "live", one case is read from standard input as JSON and its values are written as float32 to
standard output.
"""

import json
import sys

import numpy as np
from PIL import Image

KERNELS = {"box": Image.BOX, "bilinear": Image.BILINEAR, "bicubic": Image.BICUBIC, "lanczos": Image.LANCZOS}
SIZES = [((61, 47), (16, 12)), ((47, 61), (16, 16)), ((9, 7), (20, 11)), ((33, 33), (33, 33)), ((40, 6), (7, 12))]


def picture(width, height):
    y, x = np.mgrid[0:height, 0:width].astype(np.int64)
    return (((37 * x + 101 * y + 3 * x * y) % 4096) / 4095).astype(np.float32)


def resized(gray, kernel, width, height, box):
    image = Image.fromarray(gray, mode="F").resize((width, height), KERNELS[kernel], box=box)
    return np.asarray(image, np.float32)


def case(source, kernel, target, box):
    values = resized(picture(*source), kernel, *target, box)
    return {"columns": source[0], "rows": source[1], "kernel": kernel, "width": target[0], "height": target[1],
            "box": box, "values": [float(f"{v:.8g}") for v in values.ravel()]}


def crop_box(source, target):
    scale = max(target[0] / source[0], target[1] / source[1])
    w, h = min(target[0] / scale, source[0]), min(target[1] / scale, source[1])
    left, top = (source[0] - w) / 2, (source[1] - h) / 2
    return [left, top, left + w, top + h]


if sys.argv[1:] == ["live"]:
    asked = json.load(sys.stdin)
    gray = picture(asked["columns"], asked["rows"])
    out = resized(gray, asked["kernel"], asked["width"], asked["height"], asked["box"])
    sys.stdout.buffer.write(out.astype("<f4").tobytes())
else:
    cases = []
    for source, target in SIZES:
        for kernel in KERNELS:
            cases.append(case(source, kernel, target, [0, 0, *source]))
        cases.append(case(source, "bicubic", target, crop_box(source, target)))
    print("[" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases) + "]")
