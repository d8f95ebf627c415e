"""Losses that tell where a new label is, held to plain NumPy."""

import numpy as np
import pytest
import tensorflow as tf

from tfseg.losses import attention_cross_entropy, position_log_odds, presence_cross_entropy

NUM_OLD = 3


def _softmax(values):
    e = np.exp(values - values.max())
    return e / e.sum()


def _logits(scale=2.0, batch=4, positions=6, labels=5):
    return (scale * np.random.default_rng(0).standard_normal((batch, positions, labels))).astype(np.float32)


@pytest.mark.parametrize("scale", [0.0, 2.0, 500.0])
def test_log_odds_of_a_new_label_against_all_old_ones(scale):
    logits = _logits(scale)
    odds = position_log_odds(logits, NUM_OLD).numpy()
    for index in np.ndindex(odds.shape):
        b, m, n = index
        row = logits[b, m].astype(np.float64)
        among = _softmax(np.append(row[:NUM_OLD], row[NUM_OLD + n]))[
            -1
        ]  # A softmax over old labels and this.
        np.testing.assert_allclose(1 / (1 + np.exp(-np.float64(odds[index]))), among, rtol=1e-4, atol=1e-7)


def test_presence_of_equal_positions_is_that_of_one():
    """The soft maximum of equal numbers is that number: then the loss is one sigmoid cross-entropy."""
    odds = np.repeat(_logits(labels=2)[:, :1], 6, axis=1)
    present = np.array([[1, 0], [0, 0], [1, 1], [0, 1]], np.float32)
    signs = np.where(present > 0, -1.0, 1.0)
    expected = np.logaddexp(0, signs * odds[:, 0].astype(np.float64)).sum(axis=-1)
    np.testing.assert_allclose(presence_cross_entropy(odds, present), expected, rtol=1e-5)


def test_presence_lies_between_mean_and_maximum_and_one_position_is_enough():
    odds = _logits(labels=2)
    for column in (0, 1):  # softplus(x) of one label alone is inverted by log(expm1).
        one = odds[..., column : column + 1]
        pooled = np.log(np.expm1(presence_cross_entropy(one, np.zeros((4, 1), np.float32)).numpy()))
        assert (one.mean(axis=1)[:, 0] < pooled).all() and (pooled < one.max(axis=1)[:, 0]).all()
    peak = np.full((1, 6, 1), -20, np.float32)
    peak[0, 2] = 20
    assert presence_cross_entropy(peak, np.ones((1, 1), np.float32)).numpy() < 1e-3


def test_attention_is_held_to_the_odds_of_its_own_label_and_moves_alone():
    odds, label = tf.constant(_logits(labels=2)), np.array([1, 4, 5, 3], np.int32)
    attention = tf.constant(
        np.random.default_rng(1).dirichlet(np.ones(6), 4).reshape(4, 2, 3).astype(np.float32)
    )
    with tf.GradientTape() as tape:
        tape.watch([odds, attention])
        loss = attention_cross_entropy(odds, label, NUM_OLD, attention)
    target = _softmax(3.0 * odds.numpy()[1, :, 0]), _softmax(3.0 * odds.numpy()[2, :, 1])
    expected = [
        -(t * np.log(attention.numpy()[i].ravel())).sum() for i, t in zip((1, 2), target, strict=True)
    ]
    np.testing.assert_allclose(loss, [0, *expected, 0], rtol=1e-5)
    odds_gradient, attention_gradient = tape.gradient(loss, [odds, attention])
    assert odds_gradient is None and np.abs(attention_gradient[1:3]).min() > 0
    # A cross-entropy is least where both are the same.
    own = tf.constant(target[0].reshape(1, 2, 3).astype(np.float32))
    assert attention_cross_entropy(odds[1:2], label[1:2], NUM_OLD, own)[0] < loss[1]
