"""Trains and exports the bundle ``chatxray-base``: ``python -m train all``."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime 1.30 reports to its makers otherwise
