"""Run by evaluation.py with .venv-torch's Python: torchmetrics' confusion matrix, on request.

Usage: torch_evaluation.py '{"images": ..., "height": ..., "width": ...}'; see `timing.serve`.
"""

import json
import sys

import torch
from label_maps import CLASSES, label_maps
from timing import cores, serve
from torchmetrics.classification import MulticlassConfusionMatrix


def main(text: str) -> None:
    """Answers requests until standard input ends."""
    options = json.loads(text)
    torch.set_num_threads(cores())
    sizes = (options["images"], options["height"], options["width"])
    truth, guess = (torch.from_numpy(maps) for maps in label_maps(*sizes))

    def count() -> list[list[int]]:
        metric = MulticlassConfusionMatrix(CLASSES, ignore_index=255)
        for expected, found in zip(truth, guess, strict=True):
            metric.update(found, expected)
        return metric.compute().tolist()

    serve({}, {"count": count})


if __name__ == "__main__":
    main(sys.argv[1])
