import keras
import numpy as np
import pytest
import tensorflow as tf

from tfseg.losses import IGNORE_LABEL, mask_cross_entropy, mean_over_valid


def _reference(mask, logits):
    """-log softmax at the label of every pixel that is not 255, in float64, pixel by pixel."""
    total, count = 0.0, 0
    for index in np.ndindex(mask.shape):
        if mask[index] == 255:
            continue
        background, foreground = logits[index].astype(np.float64)
        chosen = foreground if mask[index] == 1 else background
        total += np.logaddexp(background, foreground) - chosen
        count += 1
    return total, count


def _sample(seed=0, scale=3.0, shape=(3, 5, 4)):
    rng = np.random.default_rng(seed)
    mask = rng.choice([0, 1, 255], shape, p=[0.4, 0.4, 0.2]).astype(np.uint8)
    return mask, (scale * rng.standard_normal((*shape, 2))).astype(np.float32)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1000.0])
def test_sum_and_count(scale):
    mask, logits = _sample(scale=scale)
    loss_sum, valid = mask_cross_entropy(mask, logits)
    total, count = _reference(mask, logits)
    np.testing.assert_allclose(loss_sum, total, rtol=1e-6)
    assert valid == count and loss_sum.dtype == valid.dtype == "float32"
    np.testing.assert_allclose(mean_over_valid(loss_sum, valid), total / count, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_half_precision_logits_are_summed_in_float32(dtype):
    mask, logits = _sample(shape=(2, 60, 60))
    logits = tf.cast(logits, dtype)
    loss_sum, _ = mask_cross_entropy(mask, logits)
    total, _ = _reference(mask, np.asarray(tf.cast(logits, "float32")))
    np.testing.assert_allclose(loss_sum, total, rtol=1e-5)


def test_equals_keras_own_cross_entropy():
    mask, logits = _sample(seed=4)
    loss_sum, _ = mask_cross_entropy(mask, logits)
    valid = mask != IGNORE_LABEL
    theirs = keras.losses.sparse_categorical_crossentropy(mask[valid], logits[valid], from_logits=True)
    np.testing.assert_allclose(loss_sum, tf.reduce_sum(theirs), rtol=1e-5)


def test_ignored_pixels_count_for_nothing():
    mask, logits = _sample()
    before = mask_cross_entropy(mask, logits)
    logits[mask == 255] = 1e30
    after = mask_cross_entropy(mask, logits)
    assert [float(x) for x in before] == [float(x) for x in after]


def test_gradient_is_softmax_minus_label():
    mask, values = _sample(seed=2)
    logits = tf.constant(values)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss = mean_over_valid(*mask_cross_entropy(mask, logits))
    gradient = tape.gradient(loss, logits)
    exact = values.astype(np.float64)
    differences = np.zeros_like(exact)
    for index in np.ndindex(exact.shape):
        for sign in (1, -1):
            moved = exact.copy()
            moved[index] += sign * 1e-5
            total, count = _reference(mask, moved)
            differences[index] += sign * total / count / 2e-5
    np.testing.assert_allclose(gradient, differences, atol=1e-7)
    np.testing.assert_array_equal(gradient[mask == 255], 0)


def test_no_valid_pixel_gives_zero_and_no_gradient():
    """As in a batch of the target domain, SPEC 5."""
    mask = np.full((2, 3, 3), 255, np.uint8)
    logits = tf.constant(_sample(shape=mask.shape)[1])
    with tf.GradientTape() as tape:
        tape.watch(logits)
        loss_sum, valid = mask_cross_entropy(mask, logits)
        loss = mean_over_valid(loss_sum, valid)
    assert float(loss) == float(loss_sum) == float(valid) == 0.0
    np.testing.assert_array_equal(tape.gradient(loss, logits), 0)


def test_large_logits_are_stable():
    """A wrong pixel costs its margin, a right one next to nothing, and neither breaks the gradient."""
    logits = tf.constant([[[[0.0, 1e6], [0.0, -1e6], [1e30, -1e30]]]])
    for labels, expected in (([0, 1, 1], 2e30), ([1, 0, 0], 0.0)):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss, _ = mask_cross_entropy(np.array([[labels]], np.uint8), logits)
        np.testing.assert_allclose(loss, expected, rtol=1e-6)
        assert np.isfinite(tape.gradient(loss, logits)).all()


def test_confident_pixels_keep_their_small_losses_and_gradients():
    for label, margin in ((1, 30.0), (0, -30.0)):
        logits = tf.constant([[[[0.0, margin]]]])
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss, _ = mask_cross_entropy(np.array([[[label]]], np.uint8), logits)
        np.testing.assert_allclose(loss, np.exp(-30.0), rtol=1e-5)
        gradient = np.asarray(tape.gradient(loss, logits)).ravel()[1]
        np.testing.assert_allclose(gradient, -np.sign(margin) * np.exp(-30.0), rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled(jit_compile):
    mask, logits = _sample(seed=6)
    compiled = tf.function(mask_cross_entropy, jit_compile=jit_compile)
    np.testing.assert_allclose(compiled(mask, logits), mask_cross_entropy(mask, logits), rtol=1e-6)


def test_sums_of_parts_are_the_sum():
    """What micro-batches and replicas rely on."""
    mask, logits = _sample(seed=8, shape=(4, 6, 6))
    whole = [float(x) for x in mask_cross_entropy(mask, logits)]
    parts = np.sum([mask_cross_entropy(mask[i : i + 1], logits[i : i + 1]) for i in range(4)], axis=0)
    np.testing.assert_allclose(parts, whole, rtol=1e-6)
