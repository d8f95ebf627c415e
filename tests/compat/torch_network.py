"""Run by test_torch_network.py in PyTorch's environment: the peer of the benchmarks on given weights.

Usage: torch_network.py INPUT.npz OUTPUT.npz; the paths of the repository and of benchmarks are in PYTHONPATH.
"""

import sys

import numpy as np
import torch
from torch_transfernet import JointStage, TransferNet

from tfseg.config import ModelConfig


def main(source: str, target: str) -> None:
    data = dict(np.load(source))
    config = ModelConfig.from_json(str(data["config"]))
    network = TransferNet(config)
    network.load_keras([data[f"weight{i}"] for i in range(sum(name.startswith("weight") for name in data))])
    batch = {}
    for domain in ("source", "target"):
        image = torch.from_numpy(data[f"{domain}/image"]).permute(0, 3, 1, 2)
        label = torch.from_numpy(data[f"{domain}/label"]).long()
        batch[domain] = {"image": image, "label": label, "mask": torch.from_numpy(data[f"{domain}/mask"])}
    with torch.no_grad():
        features, indices = network.encode(batch["source"]["image"])
        densified, class_logits = network.attend(features, batch["source"]["label"])
        mask_logits = network.decode(densified, indices)
    stage = JointStage(network, batch_size=4, micro_batch_size=1, learning_rate=1e-3)
    np.savez(
        target,
        densified=densified[:, 0].numpy(),
        class_logits=class_logits.numpy(),
        mask_logits=mask_logits.permute(0, 2, 3, 1).numpy(),
        losses=[float(stage.update(batch)) for _ in range(3)],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
