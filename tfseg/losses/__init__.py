"""Losses of the two objectives, written with `keras.ops` alone."""

from tfseg.losses.classification import label_cross_entropy, multi_label_cross_entropy
from tfseg.losses.localization import (
    attention_cross_entropy,
    position_log_odds,
    presence_cross_entropy,
)
from tfseg.losses.segmentation import IGNORE_LABEL, mask_cross_entropy, mean_over_valid

__all__ = [
    "IGNORE_LABEL",
    "attention_cross_entropy",
    "label_cross_entropy",
    "mask_cross_entropy",
    "mean_over_valid",
    "multi_label_cross_entropy",
    "position_log_odds",
    "presence_cross_entropy",
]
