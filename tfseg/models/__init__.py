"""Keras functional models: TransferNet, its two baselines and its classifier."""

from tfseg.models.baselinenet import build_baselinenet
from tfseg.models.classifier import build_classifier
from tfseg.models.decouplednet import build_decouplednet
from tfseg.models.transfernet import build_transfernet

BUILDERS = {
    "transfernet": build_transfernet,
    "baselinenet": build_baselinenet,
    "decouplednet": build_decouplednet,
}
"""The segmentation networks by the names that `--model` takes."""

__all__ = [
    "BUILDERS",
    "build_baselinenet",
    "build_classifier",
    "build_decouplednet",
    "build_transfernet",
]
