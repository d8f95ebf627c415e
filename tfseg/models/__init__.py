"""Keras functional models: TransferNet, its baselines and its classifier."""

from tfseg.models.classifier import build_classifier
from tfseg.models.transfernet import build_transfernet

BUILDERS = {"transfernet": build_transfernet}
"""The segmentation networks by the names that `--model` takes."""

__all__ = ["BUILDERS", "build_classifier", "build_transfernet"]
