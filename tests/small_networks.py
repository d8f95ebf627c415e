"""Configurations of networks that are built and run in moments."""

from tfseg.config import ModelConfig

TWO_BLOCKS = ModelConfig(
    image_size=32,
    num_labels=4,
    encoder_blocks=((1, 4), (1, 8)),
    feature_scale=0.01,
    factors=8,
    classification_units=8,
    classifier_units=8,
    decoder_init="he",
)
# No two widths are alike, so that no axis can stand in for another.
THREE_BLOCKS = ModelConfig(
    image_size=16,
    num_labels=5,
    encoder_blocks=((1, 4), (2, 6), (2, 8)),
    feature_scale=0.01,
    factors=7,
    classification_units=9,
    classifier_units=8,
    decoder_init="he",
)


def contrast(network):
    """Scales kernels: probabilities get far from one half, and a TransferNet's attention from uniform."""
    kernels = [network.get_layer("decoder").get_layer("seg_score").kernel]
    if network.name == "transfernet":
        kernels.append(network.get_layer("attention").get_layer("att_w").kernel)
    for kernel in kernels:
        kernel.assign(100.0 * kernel)
