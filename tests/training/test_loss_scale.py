"""--dtype_policy=mixed_float16: a scaled loss keeps small gradients, and large ones do no harm."""

import keras
import numpy as np
import pytest
import small_training as small

from tfseg.training.step import build_train_step

TINY = 1e-5  # Weight of the segmentation loss: below float16's smallest number at each pixel of the mask.


@pytest.fixture
def half_precision():
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy(before)


def _gradients(built, scaled, batch):
    stage = small.stage_of(built, "joint", seg_weight=TINY)
    recorder = small.Recorder(stage.trained)
    optimizer = keras.optimizers.LossScaleOptimizer(recorder) if scaled else recorder
    optimizer.build(stage.trained)
    build_train_step(stage, optimizer, small.DOMAINS, 8, 2)(batch)
    gradients = {id(v): kept.numpy() for v, kept in zip(stage.trained, recorder.gradients, strict=True)}
    return {variable.path: gradients[id(variable)] for variable in built.get_layer("decoder").variables}


def test_small_gradients_are_those_of_float32(half_precision):
    batch, half = small.batch_of(8), small.network()
    keras.config.set_dtype_policy("float32")
    whole = small.network()
    whole.set_weights(half.get_weights())
    expected = _gradients(whole, False, batch)
    small.assert_close(_gradients(half, True, batch), expected, relative=0.03)
    plain = _gradients(half, False, batch)
    lost = [np.abs(plain[n] - expected[n]).max() / np.abs(expected[n]).max() for n in expected]
    assert max(lost) > 0.3, lost  # So the scale is what did it.


def test_an_update_that_overflows_is_left_out(half_precision):
    stage = small.stage_of(small.network(), "joint")
    optimizer = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1), initial_scale=2.0**40)
    optimizer.build(stage.trained)
    step = build_train_step(stage, optimizer, small.DOMAINS, 8, 2)
    before = [variable.numpy() for variable in stage.trained]
    losses = small.scalars(step(small.batch_of(8)))
    assert np.isfinite(list(losses.values())).all() and losses["loss"] < 100  # As without a scale.
    for variable, value in zip(stage.trained, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert float(optimizer.dynamic_scale) == 2.0**39
    optimizer.dynamic_scale.assign(1024.0)
    step(small.batch_of(8))
    moved = zip(stage.trained, before, strict=True)
    assert all(np.isfinite(v.numpy()).all() and (v.numpy() != value).any() for v, value in moved)
