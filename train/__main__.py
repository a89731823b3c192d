"""``python -m train all`` runs every stage; each stage that is done already is skipped. ``python -m train convert --help``
makes a bundle of somebody else's checkpoint."""

from __future__ import annotations

import argparse
import importlib
import os
import sys

STAGES = ("prepare", "encoder", "features", "reader", "export", "view", "evaluate", "card")
ASIDE = ("planted", "calibrate", "reference", "regraph", "families")
_MODULE = {"encoder": "fit_encoder", "reader": "fit_reader"}


def main() -> None:
    if sys.argv[1:2] == ["convert"]:
        from .families.convert import main as convert

        return convert(sys.argv[2:])
    parser = argparse.ArgumentParser(prog="python -m train", description=__doc__)
    parser.add_argument("stage", choices=("all",) + STAGES + ASIDE)
    parser.add_argument("--data", help="the data pack (default ../shared/data)")
    parser.add_argument("--cache", help="scratch folder (default ~/.cache/chatxray/train)")
    parser.add_argument("--bundle", help="the bundle folder (default bundles/chatxray-base)")
    parser.add_argument("--chatxray", help="the chatxray binary (default bin/chatxray)")
    parser.add_argument("--minutes", type=float, help="time budget of a fitting stage")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    import torch
    from .settings import places

    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    where = places(options.data, options.cache, options.bundle, options.chatxray)
    for stage in STAGES if options.stage == "all" else (options.stage,):
        module = importlib.import_module(f".{_MODULE.get(stage, stage)}", __package__)
        budget = {"minutes": options.minutes} if options.minutes and stage in _MODULE else {}
        module.run(where, **budget)


if __name__ == "__main__":
    # PyTorch's large buffers otherwise go back to the kernel after every step.
    if os.environ.get("MALLOC_TRIM_THRESHOLD_") is None:
        os.environ.update(MALLOC_TRIM_THRESHOLD_="8589934592", MALLOC_MMAP_THRESHOLD_="8589934592")
        os.execv(sys.executable, [sys.executable, "-m", "train", *sys.argv[1:]])
    main()
