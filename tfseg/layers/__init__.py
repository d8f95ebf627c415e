"""Keras layers of TransferNet, written with `keras.ops` alone."""

from tfseg.layers.attention import (
    AttendedFeature,
    DensifiedAttention,
    LabelOneHot,
    SpatialSoftmax,
    gram_matrix,
)
from tfseg.layers.pooling import (
    MaxPooling2DWithSwitches,
    MaxUnpooling2D,
    argmax_to_switches,
    switches_to_argmax,
)
from tfseg.layers.preprocessing import CaffeNormalization, FeatureStandardization

__all__ = [
    "AttendedFeature",
    "CaffeNormalization",
    "DensifiedAttention",
    "FeatureStandardization",
    "LabelOneHot",
    "MaxPooling2DWithSwitches",
    "MaxUnpooling2D",
    "SpatialSoftmax",
    "argmax_to_switches",
    "gram_matrix",
    "switches_to_argmax",
]
