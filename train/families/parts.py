"""What a bundle takes of a model, whatever its family: the families' modules make Parts, tiny.py and convert.py a bundle of them."""

from __future__ import annotations

import io
import tempfile
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper

from ..graphs import OPSET, PAGE, WEIGHTS

IMAGE_WEIGHTS = "image.bin"
#: PIL's filters, numbered as processors number them.
INTERPOLATIONS = {1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}


class Unsupported(ValueError):
    """A model that a bundle cannot hold, and why."""


@dataclass
class Parts:
    """Objects of a manifest, and how the model sees: ``features`` makes what the vision graph gives (float32 [N, Dv]) of the tensor
    (float32 [channels, height, width], normalised) of a picture at the manifest's width and height; None for a model of text."""

    family: str
    preprocess: dict
    vision: dict
    decoder: dict
    prompt: dict
    features: Callable[[np.ndarray], np.ndarray] | None = None
    more: dict = field(default_factory=dict)
    tensors: tuple[dict, float] | None = None  # the language model's, for gqa.py, and the epsilon of its norms


class Store:
    """The folder that graphs go into. ``apart``: large tensors of the language model go into its weights.bin, those of the image's graphs into
    image.bin, each at a page; else they stay inside."""

    LEAST = 4096  # bytes of a large tensor
    TOLD = 500_000_000  # bytes after which progress is told again
    weights = WEIGHTS

    def __init__(self, folder: Path, apart: bool = False):
        self.folder, self.apart, self.files, self.written = folder, apart, {}, 0

    def tensor(self, name: str, value: np.ndarray) -> TensorProto:
        """A tensor of the language model."""
        if not self.apart or value.nbytes < self.LEAST:
            return numpy_helper.from_array(value, name)
        tensor = TensorProto(name=name, data_type=onnx.helper.np_dtype_to_tensor_dtype(value.dtype), dims=value.shape)
        self.put(tensor, np.ascontiguousarray(value), WEIGHTS)
        return tensor

    def put(self, tensor: TensorProto, data, name: str) -> None:
        """Writes the bytes of a tensor to the file of that name."""
        if name not in self.files:
            self.files[name] = open(self.folder / name, "wb")
        file, data = self.files[name], memoryview(data).cast("B")
        file.write(b"\0" * (-file.tell() % PAGE))
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", name), ("offset", file.tell()), ("length", len(data))):
            tensor.external_data.add(key=key, value=str(value))
        file.write(data)
        if (self.written + len(data)) // self.TOLD > self.written // self.TOLD:
            print(f"  {(self.written + len(data)) / 1e9:.1f} GB of weights written", flush=True)
        self.written += len(data)

    def exported(self, module: torch.nn.Module, examples: tuple, inputs: list[str], outputs: list[str], name: str, axes: dict) -> None:
        """An ONNX graph of a reference's module, as float32."""
        with tempfile.TemporaryDirectory() as scratch, warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            raw = io.BytesIO() if not self.apart else str(Path(scratch) / "graph.onnx")  # what is larger than 2 GB has to be a file
            torch.onnx.export(module.eval().float(), examples, raw, input_names=inputs, output_names=outputs, opset_version=OPSET, dynamo=False,
                              do_constant_folding=True, dynamic_axes=axes)
            model = onnx.load(raw) if self.apart else onnx.load_from_string(raw.getvalue())
        model.ir_version = 8
        for text in (model, model.graph):
            text.doc_string = ""
        for node in model.graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        for tensor in model.graph.initializer if self.apart else ():
            if len(tensor.raw_data) >= self.LEAST:
                self.put(tensor, tensor.raw_data, IMAGE_WEIGHTS)
        (self.folder / name).write_bytes(model.SerializeToString(deterministic=True))

    def close(self) -> None:
        for file in self.files.values():
            file.close()


def still(images) -> dict:
    """The manifest's object ``preprocess`` of an image processor that makes tensors of one size."""
    size, crop = dict(images.size), dict(getattr(images, "crop_size", None) or {}) if getattr(images, "do_center_crop", False) else {}
    if getattr(images, "do_pad", False):
        raise Unsupported("the image processor pads pictures with a colour before it resamples them (do_pad)")
    if not images.do_resize or not images.do_rescale or abs(images.rescale_factor * 255 - 1) > 1e-6:
        raise Unsupported("the image processor does not resample, or scales gray values otherwise than to 0..1")
    if "shortest_edge" in size:
        side = size["shortest_edge"]
        if crop != {"height": side, "width": side}:
            raise Unsupported(f"the image processor resamples to a shortest edge of {side} and crops {crop or 'nothing'}")
        width, height, fit = side, side, "crop"
    elif not crop or crop == size:
        width, height, fit = size["width"], size["height"], "squash"
    else:
        raise Unsupported(f"the image processor resamples to {size} and crops {crop}")
    if int(images.resample) not in INTERPOLATIONS:
        raise Unsupported(f"the image processor resamples with Pillow's filter {int(images.resample)}")
    plain = not images.do_normalize
    return {"width": width, "height": height, "channels": 3, "fit": fit, "interpolation": INTERPOLATIONS[int(images.resample)],
            "mean": [0.0] * 3 if plain else list(images.image_mean), "std": [1.0] * 3 if plain else list(images.image_std), "voi": "default"}


def batched(module: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[np.ndarray], np.ndarray]:
    """Parts.features of a vision module that takes [B, channels, height, width]."""
    def features(tensor):
        with torch.no_grad():
            return module(torch.from_numpy(np.ascontiguousarray(tensor, np.float32))[None])[0].float().numpy()
    return features


def spelled(tokenizer, id: int) -> str:
    """A token of the vocabulary, by its id."""
    token = tokenizer.convert_ids_to_tokens(int(id))
    if token is None:
        raise Unsupported(f"the tokenizer has no token {id}, which the configuration names")
    return token
