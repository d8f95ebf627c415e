"""SPEC 3.2 to 3.5: every parameter count, and how the parameters begin."""

import keras
import numpy as np
import pytest

from tfseg.config import preset
from tfseg.models.attention import build_attention
from tfseg.models.transfernet import build_transfernet

# Layer -> parameters; layers, widths and counts as SPEC 3 prints them, convolutions from VGG-16.
ENCODER = {
    "conv1_1": 1_792,
    "conv1_2": 36_928,
    "conv2_1": 73_856,
    "conv2_2": 147_584,
    "conv3_1": 295_168,
    "conv3_2": 590_080,
    "conv3_3": 590_080,
    "conv4_1": 1_180_160,
    "conv4_2": 2_359_808,
    "conv4_3": 2_359_808,
    "conv5_1": 2_359_808,
    "conv5_2": 2_359_808,
    "conv5_3": 2_359_808,
}
ATTENTION = {
    "feat_embed": 209_716_224,
    "cls_embed": 82_944,
    "combined_embed": 1_049_600,
    "att_w": 410_000,
}
CLASSIFICATION_HEAD = {"ip1": 262_656, "cls_score": 41_040}
DECODER = {
    "deconv5_1": 5_120,
    "deconv4_1": 2_359_808,
    "deconv4_2": 2_359_808,
    "deconv4_3": 1_179_904,
    "deconv3_1": 590_080,
    "deconv3_2": 590_080,
    "deconv3_3": 295_040,
    "deconv2_1": 147_584,
    "deconv2_2": 73_792,
    "deconv1_1": 36_928,
    "deconv1_2": 36_928,
    "seg_score": 130,
}


@pytest.fixture(scope="module")
def official():
    return build_transfernet(preset("official"))


def _counts(model):
    layers = [layer for layer in model.layers if not isinstance(layer, keras.Model)]
    return {layer.name: layer.count_params() for layer in layers if layer.count_params()}


def test_official_counts_layer_by_layer(official):
    attention = official.get_layer("attention")
    assert _counts(official.get_layer("encoder")) == ENCODER
    assert _counts(attention) == ATTENTION
    assert _counts(attention.get_layer("classification_head")) == CLASSIFICATION_HEAD
    assert _counts(official.get_layer("decoder")) == DECODER


def test_official_split(official):
    head = official.get_layer("attention").get_layer("classification_head")
    assert official.get_layer("encoder").count_params() == 14_714_688
    assert official.get_layer("attention").count_params() - head.count_params() == 211_258_768
    assert head.count_params() == 303_696
    assert official.get_layer("decoder").count_params() == 7_675_202
    assert official.count_params() == 233_952_354


def test_official_shapes(official):
    assert {name: x.shape for name, x in official.input.items()} == {
        "image": (None, 320, 320, 3),
        "label": (None,),
    }
    assert {name: x.shape for name, x in official.output.items()} == {
        "attention": (None, 20, 20),
        "densified": (None, 20, 20),
        "class_logits": (None, 80),
        "mask_logits": (None, 320, 320, 2),
    }


def test_paper_has_equation_4_as_printed(official):
    attention = build_attention(preset("paper"))
    assert "combined_embed" not in [layer.name for layer in attention.layers]
    others = official.count_params() - official.get_layer("attention").count_params()
    assert others + attention.count_params() == 232_902_754


def test_initialisers_are_the_authors(official):
    """xavier of Caffe is uniform in +-sqrt(3 / fan_in); Gaussians have std 0.01; biases are 0."""
    attention = official.get_layer("attention")
    head = attention.get_layer("classification_head")
    for layer in [
        *(attention.get_layer(name) for name in ("feat_embed", "cls_embed", "combined_embed")),
        *(head.get_layer(name) for name in ("ip1", "cls_score")),
    ]:
        kernel, bias = layer.get_weights()
        bound = np.sqrt(3.0 / kernel.shape[0])
        sample = kernel[:2000]
        assert np.abs(kernel).max() <= bound
        assert sample.max() > 0.999 * bound and sample.min() < -0.999 * bound, layer.name
        _assert_moments(sample, bound / np.sqrt(3.0), kurtosis=1.8)
        assert not bias.any()

    decoder = official.get_layer("decoder")
    for layer in [attention.get_layer("att_w"), *(decoder.get_layer(name) for name in DECODER)]:
        kernel, bias = layer.get_weights()
        _assert_moments(kernel, 0.01, kurtosis=3.0)
        assert not bias.any()


def _assert_moments(sample, std, kurtosis):
    """Mean 0 and the given standard deviation within six standard errors."""
    sample = sample.astype(np.float64)
    error = 6.0 / np.sqrt(sample.size)
    assert abs(sample.mean()) < error * std
    assert abs(sample.std() / std - 1.0) < error * np.sqrt((kurtosis - 1.0) / 4.0)


def test_he_decoder_starts_at_the_scale_of_its_fan_in():
    config = preset("tiny")
    assert config.decoder_init == "he"
    decoder = build_transfernet(config).get_layer("decoder")
    kernel = decoder.get_layer("deconv3_1").get_weights()[0]
    std = np.sqrt(2.0 / (9 * kernel.shape[3]))
    # Keras truncates at two standard deviations and corrects the spread.
    assert abs(kernel.std() / std - 1.0) < 0.02
