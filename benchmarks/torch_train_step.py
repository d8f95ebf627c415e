"""Run by train_step.py with .venv-torch's Python: updates of the joint stage in PyTorch, on request.

Usage: torch_train_step.py JSON, as for train_step_worker.py, and `compiled`; see `timing.serve`.
"""

import json
import sys

import torch
from timing import Laps, cores, serve
from torch_transfernet import JointStage, TransferNet, random_batch

from tfseg.config import preset

AUTOCAST = {"float32": None, "mixed_bfloat16": torch.bfloat16}


def main(text: str) -> None:
    """Answers requests until standard input ends."""
    options = json.loads(text)
    start = Laps(options["started"])
    start.end("imports")
    torch.manual_seed(0)
    torch.set_num_threads(options["threads"] or cores())
    config = preset(options["preset"])
    config = config.replace(image_size=options["image_size"] or config.image_size)
    stage = JointStage(
        TransferNet(config).to(memory_format=torch.channels_last),
        options["batch_size"],
        options["micro_batch_size"],
        autocast=AUTOCAST[options["dtype_policy"]],
        compiled=options["compiled"],
    )
    batch = random_batch(config, options["batch_size"] // 2)
    start.end("network")
    loss = float(stage.update(batch))
    start.end("first update")
    serve({"loss": loss, "start": start.seconds}, {"update": lambda: float(stage.update(batch))})


if __name__ == "__main__":
    main(sys.argv[1])
