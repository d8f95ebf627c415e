"""Run by inference.py with .venv-torch's Python: masks of several labels an image, on request.

Usage: torch_inference.py '{"preset": ..., "image_size": ..., "num_labels": ..., "threads": ...}'; see
`timing.serve`. A measurement is named `BATCH LABELS`; an image is encoded once, as ours.
"""

import itertools
import json
import sys

import torch
from timing import cores, serve
from torch_transfernet import TransferNet

from tfseg.config import preset


def main(text: str) -> None:
    """Answers requests until standard input ends."""
    options = json.loads(text)
    torch.manual_seed(0)
    torch.set_num_threads(options["threads"] or cores())
    size, labels = options["image_size"], options["num_labels"]
    config = preset(options["preset"]).replace(image_size=size, num_labels=labels)
    network = TransferNet(config).to(memory_format=torch.channels_last).eval()
    images = torch.randint(0, 256, (8, 3, size, size)).float().contiguous(memory_format=torch.channels_last)

    def segment(batch: int, count: int) -> None:
        with torch.inference_mode():
            features, indices = network.encode(images[:batch])
            index = torch.arange(batch).repeat_interleave(count)
            label = torch.arange(1, count + 1).repeat(batch)
            densified, _ = network.attend(features[index], label)
            torch.softmax(network.decode(densified, [x[index] for x in indices]), dim=1)[:, 1].numpy()

    serve(
        {},
        {
            f"{batch} {count}": lambda b=batch, k=count: segment(b, k)
            for batch, count in itertools.product((1, 8), (1, 2, 3, 5))
        },
    )


if __name__ == "__main__":
    main(sys.argv[1])
