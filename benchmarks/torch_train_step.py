"""Run by train_step.py and gpu_step.py with PyTorch's Python: updates of the joint stage, on request.

Usage: torch_train_step.py JSON, as for train_step_worker.py, and `compiled`, `device` (cuda falls back to
cpu) and `updates`, how many `updates` runs; see `timing.serve`. float32 takes TF32 where the GPU has it.
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
    device = options.get("device", "cpu") if torch.cuda.is_available() else "cpu"
    if device == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.backends.cudnn.allow_tf32 = True
    stage = JointStage(
        TransferNet(config).to(device, memory_format=torch.channels_last),
        options["batch_size"],
        options["micro_batch_size"],
        autocast=AUTOCAST[options["dtype_policy"]],
        compiled=options["compiled"],
    )
    batch = random_batch(config, options["batch_size"] // 2, device)
    start.end("network")
    loss = float(stage.update(batch))
    start.end("first update")

    def updates(count: int) -> float:
        for _ in range(count):
            loss = stage.update(batch)
        return float(loss)  # Waits for the GPU.

    name = torch.cuda.get_device_name() if device == "cuda" else "cpu"
    serve(
        {"loss": loss, "start": start.seconds, "device": name},
        {"update": lambda: updates(1), "updates": lambda: updates(options["updates"])},
    )


if __name__ == "__main__":
    main(sys.argv[1])
