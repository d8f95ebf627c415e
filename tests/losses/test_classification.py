import numpy as np
import pytest
import tensorflow as tf

from tfseg.losses import label_cross_entropy, multi_label_cross_entropy


def _label_reference(label, logits):
    losses = []
    for identity, row in zip(label, logits.astype(np.float64), strict=True):
        top = row.max()
        losses.append(top + np.log(np.sum(np.exp(row - top))) - row[identity - 1])
    return np.array(losses)


def _multi_label_reference(present, known, logits):
    """-log of the probability given to what is there, over known labels."""
    losses = np.zeros(len(logits))
    for b, k in np.ndindex(logits.shape):
        if known[b, k]:
            sign = 1.0 if present[b, k] else -1.0
            losses[b] += np.logaddexp(0.0, -sign * np.float64(logits[b, k]))
    return losses


def _sample(scale=2.0, batch=6, num_labels=5):
    rng = np.random.default_rng(0)
    label = rng.integers(1, num_labels + 1, batch).astype(np.int32)
    label[0], label[1] = 1, num_labels
    return label, (scale * rng.standard_normal((batch, num_labels))).astype(np.float32)


def _multi_sample(scale=2.0):
    rng = np.random.default_rng(1)
    present = rng.integers(0, 2, (4, 7)).astype(np.float32)
    known = rng.integers(0, 2, (4, 7)).astype(np.float32)
    known[0] = 0.0
    return present, known, (scale * rng.standard_normal((4, 7))).astype(np.float32)


def _assert_gradient(function, reference, logits):
    """Tape against central differences of the float64 reference."""
    tensor = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(tensor)
        loss = tf.reduce_sum(function(tensor))
    differences = np.zeros(logits.shape)
    for index in np.ndindex(logits.shape):
        for sign in (1, -1):
            moved = logits.astype(np.float64)
            moved[index] += sign * 1e-5
            differences[index] += sign * reference(moved).sum() / 2e-5
    np.testing.assert_allclose(tape.gradient(loss, tensor), differences, atol=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 3e4])
def test_label_cross_entropy(scale):
    label, logits = _sample(scale)
    actual = label_cross_entropy(label, logits)
    np.testing.assert_allclose(actual, _label_reference(label, logits), rtol=1e-5, atol=1e-5)
    assert actual.dtype == "float32" and actual.shape == (6,)


def test_label_gradient():
    label, logits = _sample()
    _assert_gradient(lambda x: label_cross_entropy(label, x), lambda x: _label_reference(label, x), logits)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_ids_outside_the_labels_give_no_number(jit_compile):
    """0 is background; silently it would teach another label."""
    _, logits = _sample()
    function = tf.function(label_cross_entropy, jit_compile=jit_compile)
    losses = np.asarray(function(np.array([0, 5, 6, -1, 1, 255], np.int32), logits))
    np.testing.assert_array_equal(np.isnan(losses), [True, False, True, True, False, True])
    inside = _label_reference([5, 1], logits[[1, 4]])
    np.testing.assert_allclose(losses[[1, 4]], inside, rtol=1e-5)


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 3e4])
def test_multi_label_cross_entropy(scale):
    present, known, logits = _multi_sample(scale)
    actual = multi_label_cross_entropy(present, known, logits)
    expected = _multi_label_reference(present, known, logits)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-5)
    assert actual.dtype == "float32" and actual.shape == (4,)
    assert float(actual[0]) == 0.0  # Nothing is known of this image.


def test_multi_label_gradient():
    present, known, logits = _multi_sample()
    _assert_gradient(
        lambda x: multi_label_cross_entropy(present, known, x),
        lambda x: _multi_label_reference(present, known, x),
        logits,
    )


def test_unknown_labels_count_for_nothing():
    present, known, logits = _multi_sample()
    before = multi_label_cross_entropy(present, known, logits)
    logits[known == 0] = 1e4
    after = multi_label_cross_entropy(np.where(known, present, 1 - present), known, logits)
    np.testing.assert_array_equal(before, after)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_logits_are_summed_in_float32(dtype):
    label, logits = _sample()
    half = tf.cast(logits, dtype)
    exact = np.asarray(tf.cast(half, "float32"))
    actual = label_cross_entropy(label, half)
    np.testing.assert_allclose(actual, _label_reference(label, exact), rtol=1e-5)
    present, known, logits = _multi_sample()
    half = tf.cast(logits, dtype)
    expected = _multi_label_reference(present, known, np.asarray(tf.cast(half, "float32")))
    np.testing.assert_allclose(multi_label_cross_entropy(present, known, half), expected, rtol=1e-5)


@pytest.mark.parametrize("jit_compile", [False, True])
def test_compiled(jit_compile):
    label, logits = _sample()
    compiled = tf.function(label_cross_entropy, jit_compile=jit_compile)
    np.testing.assert_allclose(compiled(label, logits), label_cross_entropy(label, logits), rtol=1e-5)
    sample = _multi_sample()
    compiled = tf.function(multi_label_cross_entropy, jit_compile=jit_compile)
    np.testing.assert_allclose(compiled(*sample), multi_label_cross_entropy(*sample), rtol=1e-5)
