import functools

import battery
import keras
import numpy as np
import numpy_reference
import pytest
from keras import ops

from tfseg.layers import (
    AttendedFeature,
    DensifiedAttention,
    LabelOneHot,
    SpatialSoftmax,
    gram_matrix,
)

RNG = np.random.default_rng(4)
FEATURES = RNG.uniform(0, 1, (2, 3, 4, 5))
ATTENTION = numpy_reference.spatial_softmax(RNG.standard_normal((2, 16)))[:, :3]

CASES = (
    battery.LayerCase(
        LabelOneHot,
        {"num_labels": 5},
        (np.array([1, 5, 3, 2], np.int32),),
        functools.partial(numpy_reference.label_one_hot, num_labels=5),
        exact=True,
    ),
    battery.LayerCase(
        SpatialSoftmax,
        {"map_size": 4},
        (RNG.standard_normal((3, 16)) * 3,),
        numpy_reference.spatial_softmax,
    ),
    battery.LayerCase(AttendedFeature, {}, (FEATURES, ATTENTION), numpy_reference.attended_feature),
    battery.LayerCase(
        DensifiedAttention,
        {},
        (FEATURES, RNG.uniform(0, 1, (2, 5))),
        numpy_reference.densified_attention,
    ),
)


@pytest.mark.parametrize("check", battery.CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_battery(case, check):
    check(case)


@pytest.mark.parametrize("policy", ["float32", "bfloat16"])
def test_ids_outside_the_labels_are_nan(policy):
    """0 is background and 255 is ignore; neither may alias a label."""
    encoded = np.asarray(LabelOneHot(3, dtype=policy)(np.array([0, 2, -1, 4, 255], np.int32)), np.float32)
    assert np.isnan(encoded[[0, 2, 3, 4]]).all()
    np.testing.assert_array_equal(encoded[1], [0, 1, 0])


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_label_may_be_of_any_integer_type(dtype):
    np.testing.assert_array_equal(LabelOneHot(3)(np.array([2], dtype)), [[0, 1, 0]])


@pytest.mark.parametrize("policy", ["float32", "bfloat16", "float16"])
def test_softmax_survives_large_and_constant_inputs(policy):
    alpha = np.zeros((3, 400), np.float32)
    alpha[1] = 3e4
    alpha[2, 7] = 6e4
    attention = np.asarray(SpatialSoftmax(20, dtype=policy)(alpha)).astype(np.float64)
    np.testing.assert_allclose(attention[:2], 1 / 400, rtol=2**-8)
    assert attention[2, 0, 7] == 1.0 and attention[2].sum() == 1.0


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_softmax_is_rounded_once(dtype):
    alpha = ops.cast(np.random.default_rng(0).standard_normal((4, 400)) * 4, dtype)
    exact = numpy_reference.spatial_softmax(np.asarray(ops.cast(alpha, "float64")))
    rounded = ops.cast(ops.cast(exact, "float32"), dtype)
    agree = np.asarray(SpatialSoftmax(20, dtype=dtype)(alpha)) == np.asarray(rounded)
    assert agree.mean() > 0.99  # All but those that lie between two values of the dtype.


def test_softmax_positions_are_row_major():
    alpha = np.zeros((1, 400), np.float32)
    alpha[0, 3 * 20 + 11] = 50.0
    attention = np.asarray(SpatialSoftmax(20)(alpha))[0]
    assert np.unravel_index(attention.argmax(), attention.shape) == (3, 11)


def test_softmax_refuses_a_map_that_does_not_fill():
    with pytest.raises(ValueError, match="15 positions"):
        SpatialSoftmax(4)(keras.Input((15,)))


def test_gram_matrix_is_equation_10():
    gram = np.asarray(gram_matrix(FEATURES))
    np.testing.assert_allclose(gram, numpy_reference.gram_matrix(FEATURES), rtol=1e-6)
    assert gram_matrix(keras.KerasTensor((None, 3, 4, 5))).shape == (None, 12, 12)


def test_equations_5_and_7_are_equation_10():
    z = AttendedFeature(dtype="float64")([FEATURES, ATTENTION])
    s = np.asarray(DensifiedAttention(dtype="float64")([FEATURES, z]))
    rows = numpy_reference.gram_matrix(FEATURES) @ ATTENTION.reshape(2, 12, 1)
    np.testing.assert_allclose(s.reshape(2, 12, 1), rows, rtol=1e-12)
    assert np.asarray(z).min() >= 0 and s.min() >= 0
