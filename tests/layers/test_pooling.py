import battery
import keras
import numpy as np
import numpy_reference
import pytest
import tensorflow as tf
from keras import ops

from tfseg.layers import (
    MaxPooling2DWithSwitches,
    MaxUnpooling2D,
    argmax_to_switches,
    switches_to_argmax,
)

RNG = np.random.default_rng(3)
# A permutation: no ties, and gaps that bfloat16 and finite differences keep apart.
DISTINCT = RNG.permutation(2 * 4 * 6 * 3).reshape(2, 4, 6, 3) / 16.0 - 3.0
TIED = RNG.integers(-1, 2, (3, 6, 4, 2)).astype(np.float64)
VALUES = RNG.standard_normal((2, 3, 2, 4))
SWITCHES = RNG.integers(0, 4, VALUES.shape).astype(np.uint8)

CASES = (
    battery.LayerCase(
        MaxPooling2DWithSwitches,
        {"pool_size": 2},
        (DISTINCT,),
        numpy_reference.max_pool_with_switches,
        exact=True,
        dynamic_axes=(1, 2),
    ),
    battery.LayerCase(
        MaxUnpooling2D,
        {"pool_size": 2},
        (VALUES, SWITCHES),
        numpy_reference.max_unpool,
        exact=True,
        dynamic_axes=(1, 2),
    ),
)


@pytest.mark.parametrize("check", battery.CHECKS)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_battery(case, check):
    check(case)


def _relu_maps():
    """Ties at zero, windows of nothing but zero, negative zeros, large and tiny values."""
    rng = np.random.default_rng(11)
    maps = np.maximum(rng.standard_normal((3, 8, 10, 5)), 0).astype(np.float32)
    maps[rng.random(maps.shape) < 0.4] = 0.0
    maps[0, :4] = 0.0
    maps[1, :4] = -1.5
    maps[2, ::3] *= 1e30
    maps[2, 1::3] *= 1e-30  # Not subnormal: XLA flushes those to zero.
    maps[1, 5, 5] = -0.0
    return maps


INPUTS = {
    "relu": _relu_maps(),
    "ties": TIED.astype(np.float32),
    "zeros": np.zeros((2, 4, 4, 3), np.float32),
    "negative": -np.abs(DISTINCT).astype(np.float32),
    "normal": RNG.standard_normal((2, 16, 12, 7)).astype(np.float32),
    "one_window": np.array([[[[1.0], [2.0]], [[2.0], [1.0]]]], np.float32),
}


def _bits(x):
    return np.asarray(x).view(np.uint32)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_pooling_equals_the_argmax_op(name, jit_compile):
    maps = INPUTS[name]
    layer = MaxPooling2DWithSwitches()
    pool = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
    pooled, switches = pool(maps)
    wanted, argmax = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID")
    np.testing.assert_array_equal(_bits(pooled), _bits(wanted))
    np.testing.assert_array_equal(switches, argmax_to_switches(argmax))
    np.testing.assert_array_equal(switches_to_argmax(switches), argmax)
    assert switches.dtype == "uint8"


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("jit_compile", [None, False, True])
def test_unpooling_equals_scatter(name, jit_compile):
    values, argmax = tf.nn.max_pool_with_argmax(INPUTS[name], 2, 2, "VALID", include_batch_in_index=True)
    flat = tf.scatter_nd(tf.reshape(argmax, (-1, 1)), tf.reshape(values, (-1,)), (INPUTS[name].size,))
    _, switches = numpy_reference.max_pool_with_switches(INPUTS[name])
    layer = MaxUnpooling2D()
    unpool = layer if jit_compile is None else tf.function(layer, jit_compile=jit_compile)
    actual = unpool((values, tf.constant(switches)))
    # scatter_nd adds to zero, which turns -0 into 0; every other bit is the same.
    np.testing.assert_array_equal(_bits(actual + 0.0), _bits(tf.reshape(flat, INPUTS[name].shape)))


@pytest.mark.parametrize("name", INPUTS)
def test_gradient_equals_that_of_the_argmax_op(name):
    maps = tf.constant(INPUTS[name])
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(maps)
        pooled, _ = MaxPooling2DWithSwitches()(maps)
        wanted, _ = tf.nn.max_pool_with_argmax(maps, 2, 2, "VALID")
    upstream = np.random.default_rng(1).standard_normal(pooled.shape).astype(np.float32)
    np.testing.assert_array_equal(
        tape.gradient(pooled, maps, upstream), tape.gradient(wanted, maps, upstream)
    )


def test_tie_gradient_goes_to_the_first_maximum_alone():
    maps = tf.zeros((1, 4, 4, 2))
    with tf.GradientTape() as tape:
        tape.watch(maps)
        pooled, switches = MaxPooling2DWithSwitches()(maps)
    gradient = tape.gradient(pooled, maps).numpy()
    np.testing.assert_array_equal(switches, 0)
    np.testing.assert_array_equal(gradient[:, ::2, ::2], 1)
    assert gradient.sum() == 8


@pytest.mark.parametrize("name", INPUTS)
def test_unpooling_is_the_adjoint_of_pooling(name):
    """<pool gradient, g> = unpool(g): the two layers are each other's gradient."""
    maps = tf.constant(INPUTS[name])
    with tf.GradientTape() as tape:
        tape.watch(maps)
        pooled, switches = MaxPooling2DWithSwitches()(maps)
    upstream = np.random.default_rng(2).standard_normal(pooled.shape).astype(np.float32)
    gradient = tape.gradient(pooled, maps, upstream)
    np.testing.assert_array_equal(gradient, MaxUnpooling2D()((tf.constant(upstream), switches)))


def test_pooling_what_was_unpooled_gives_values_and_switches_back():
    rng = np.random.default_rng(5)
    values = rng.uniform(0.01, 9.0, (2, 5, 7, 6)).astype(np.float32)
    switches = rng.integers(0, 4, values.shape).astype(np.uint8)
    unpooled = MaxUnpooling2D()((values, switches))
    pooled, again = MaxPooling2DWithSwitches()(unpooled)
    np.testing.assert_array_equal(_bits(pooled), _bits(values))
    np.testing.assert_array_equal(again, switches)
    assert np.count_nonzero(unpooled) == values.size


def test_switches_and_argmax_convert_both_ways():
    rng = np.random.default_rng(6)
    switches = rng.integers(0, 4, (3, 5, 7, 11)).astype(np.uint8)
    argmax = switches_to_argmax(switches)
    assert argmax.dtype == "int64"
    np.testing.assert_array_equal(argmax, numpy_reference.flat_argmax(switches))
    for dtype in ("int64", "int32"):
        back = argmax_to_switches(ops.cast(argmax, dtype))
        assert back.dtype == "uint8"
        np.testing.assert_array_equal(back, switches)


def test_conversions_take_unknown_sizes():
    switches = np.random.default_rng(8).integers(0, 4, (2, 3, 4, 5)).astype(np.uint8)
    round_trip = tf.function(
        lambda x: argmax_to_switches(switches_to_argmax(x)),
        input_signature=[tf.TensorSpec((None, None, None, None), "uint8")],
    )
    np.testing.assert_array_equal(round_trip(switches), switches)
    symbolic = switches_to_argmax(keras.KerasTensor((None, 3, 4, 5), "uint8"))
    assert symbolic.shape == (None, 3, 4, 5)


def test_nan_in_a_window():
    """Documented: comparisons with NaN are false, so that it stays where it comes first."""
    nan = np.nan
    for window, pooled, switch in (
        ([nan, 1, 2, 3], nan, 0),
        ([1, nan, 2, 3], 3, 3),
        ([1, 2, nan, 3], 2, 1),
        ([1, 2, 3, nan], 3, 2),
        ([nan, nan, nan, nan], nan, 0),
    ):
        inputs = np.array(window, np.float32).reshape(1, 2, 2, 1)
        for layer in (MaxPooling2DWithSwitches(), tf.function(MaxPooling2DWithSwitches())):
            values, switches = layer(inputs)
            np.testing.assert_array_equal(np.ravel(values), [np.float32(pooled)])
            assert np.ravel(switches) == [switch]


@pytest.mark.parametrize("shape, size", [((1, 5, 4, 2), "height 5"), ((1, 4, 7, 2), "width 7")])
def test_odd_sizes_are_refused_by_name(shape, size):
    layer = MaxPooling2DWithSwitches()
    for call in (
        lambda: layer(np.zeros(shape, np.float32)),
        lambda: layer(keras.Input(shape[1:])),
        lambda: layer.compute_output_shape(shape),
        lambda: tf.function(layer)(np.zeros(shape, np.float32)),
    ):
        with pytest.raises(ValueError, match=size):
            call()


def test_odd_sizes_that_tracing_cannot_see_are_refused_too():
    """4 images of 5x4 hold as many windows as 5 of 4x4: nothing may be regrouped unseen."""
    pool = tf.function(MaxPooling2DWithSwitches(), input_signature=[tf.TensorSpec((None, None, None, 3))])
    with pytest.raises(tf.errors.InvalidArgumentError):
        pool(np.zeros((4, 5, 4, 3), np.float32))


@pytest.mark.parametrize("layer", [MaxPooling2DWithSwitches, MaxUnpooling2D])
@pytest.mark.parametrize("pool_size", [1, 3, (2, 3), 0])
def test_other_pool_sizes_are_refused(layer, pool_size):
    with pytest.raises(ValueError, match="only 2"):
        layer(pool_size=pool_size)
    assert layer(pool_size=(2, 2)).pool_size == 2


def test_unequal_values_and_switches_are_refused():
    layer = MaxUnpooling2D()
    good = np.zeros((1, 2, 2, 3), np.float32)
    layer((good, np.zeros((1, 2, 2, 3), np.uint8)))
    for shape in ((1, 2, 2, 4), (1, 1, 1, 3), (1, 4, 2, 3)):
        with pytest.raises(ValueError, match="equal"):
            layer((good, np.zeros(shape, np.uint8)))
        with pytest.raises(ValueError, match="equal"):
            MaxUnpooling2D()((keras.Input((2, 2, 3)), keras.Input(shape[1:], dtype="uint8")))


def test_channels_use_their_own_switches():
    values = np.ones((1, 1, 1, 4), np.float32)
    switches = np.arange(4, dtype=np.uint8).reshape(1, 1, 1, 4)
    unpooled = np.asarray(MaxUnpooling2D()((values, switches)))
    for channel in range(4):
        np.testing.assert_array_equal(unpooled[0, :, :, channel].ravel(), np.eye(4)[channel])
