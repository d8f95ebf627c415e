import functools

import battery
import keras
import numpy as np
import numpy_reference
import pytest

from tfseg.config import BGR_MEAN_INFERENCE, BGR_MEAN_TRAIN
from tfseg.layers import CaffeNormalization, FeatureStandardization

IMAGE = np.random.default_rng(9).integers(0, 256, (2, 4, 5, 3)).astype(np.float64)

CASES = [
    battery.LayerCase(
        CaffeNormalization,
        {"bgr_mean": mean},
        (IMAGE,),
        functools.partial(numpy_reference.caffe_normalization, bgr_mean=mean),
        dynamic_axes=(1, 2),
    )
    for mean in (BGR_MEAN_TRAIN, BGR_MEAN_INFERENCE)
] + [
    battery.LayerCase(
        FeatureStandardization, {"scale": 0.25}, (IMAGE,), lambda x: 0.25 * x, dynamic_axes=(1, 2)
    )
]


@pytest.mark.parametrize("check", battery.CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_battery(case, check):
    check(case)


def test_red_comes_last_and_the_mean_is_zero():
    red = np.zeros((1, 1, 1, 3), np.float32)
    red[..., 0] = 255.0
    np.testing.assert_allclose(
        np.ravel(CaffeNormalization(BGR_MEAN_TRAIN)(red)), [-104.008, -116.669, 255 - 122.675]
    )


def test_it_is_the_caffe_mode_of_keras_up_to_the_mean():
    ours = CaffeNormalization((103.939, 116.779, 123.68))(IMAGE.astype(np.float32))
    theirs = keras.applications.vgg16.preprocess_input(IMAGE.astype(np.float32))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_standardised_features_are_those_of_the_formula():
    """The statistics of the features themselves give zero mean and the scale as standard deviation."""
    features = np.random.default_rng(3).gamma(0.5, [1.0, 30.0, 200.0], (4, 5, 5, 3)).astype(np.float32)
    layer = FeatureStandardization(0.3)
    np.testing.assert_allclose(layer(features), 0.3 * features, rtol=1e-6)
    layer.mean.assign(features.mean(axis=(0, 1, 2)))
    layer.stddev.assign(features.std(axis=(0, 1, 2)))
    got = np.asarray(layer(features))
    np.testing.assert_allclose(got.mean(axis=(0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(got.std(axis=(0, 1, 2)), 0.3, rtol=1e-4)
