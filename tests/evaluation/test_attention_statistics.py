"""Statistics of attention maps, against definitions written out pair by pair."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from tfseg.evaluation.attention_shares import attention_entry
from tfseg.evaluation.attention_statistics import (
    AttentionSums,
    attention_statistics,
    statistics_of_entries,
    sums_of_maps,
)
from tfseg.training.stages import attention_sums

L, SIDE, IMAGE = 4, 5, 20


def _pairs(count, seed=0, concentration=0.3):
    rng = np.random.default_rng(seed)
    maps = rng.dirichlet(np.full(SIDE * SIDE, concentration), count).reshape(-1, SIDE, SIDE)
    labels = rng.integers(1, L + 1, count)
    mask = rng.choice([0, 1, 255], (count, IMAGE, IMAGE), p=[0.6, 0.3, 0.1]).astype(np.uint8)
    mask[::3] = 255  # No mask.
    image = rng.uniform(1, 255, (count, IMAGE, IMAGE, 3)).astype(np.float32)
    image[1::2, 12:] = 0  # Padding: the two lowest rows of positions.
    return maps.astype(np.float32), labels, mask, image


def _by_hand(maps, mask, image):
    """Weight on object and padding and the object's area, pixel by pixel."""
    spread = np.kron(maps, np.ones((4, 4))) / 16
    black = image.max(axis=-1).reshape(-1, SIDE, 4, SIDE, 4).max(axis=(2, 4)) == 0
    known = (mask != 255).any(axis=(1, 2))
    inside = [float((s * (m == 1)).sum()) if k else None for s, m, k in zip(spread, mask, known, strict=True)]
    area = [float((m == 1).sum() / (m != 255).sum()) if k else None for m, k in zip(mask, known, strict=True)]
    return inside, area, black


def _assert_equal(actual: AttentionSums, expected: AttentionSums):
    for field in dataclasses.fields(AttentionSums):
        got, wanted = getattr(actual, field.name), getattr(expected, field.name)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5, err_msg=field.name)


def test_graph_and_numpy_sum_the_same():
    maps, labels, mask, image = _pairs(24)
    examples = {
        "image": tf.constant(image),
        "label": tf.constant(labels, tf.int32),
        "mask": tf.constant(mask),
    }
    found = attention_sums(examples, tf.constant(maps), L)
    graph = AttentionSums(**{name.removeprefix("attention/"): v.numpy() for name, v in found.items()})
    inside, area, black = _by_hand(maps, mask, image)
    _assert_equal(graph, sums_of_maps(maps, labels, L, inside, area, black))


def test_sums_of_parts_are_those_of_the_whole():
    maps, labels, mask, image = _pairs(20, seed=1)
    inside, area, black = _by_hand(maps, mask, image)

    def part(where):
        return sums_of_maps(maps[where], labels[where], L, inside[where], area[where], black[where])

    _assert_equal(part(slice(0, 7)) + part(slice(7, 20)), part(slice(0, 20)))


def _statistics(maps, labels, ids=range(1, L + 1)):
    none = [None] * len(maps)
    return attention_statistics(sums_of_maps(maps, labels, L, none, none, np.zeros((SIDE, SIDE), bool)), ids)


def test_shares_are_means_over_pairs():
    maps, labels, mask, image = _pairs(30, seed=2)
    inside, area, black = _by_hand(maps, mask, image)
    found = attention_statistics(sums_of_maps(maps, labels, L, inside, area, black), range(1, L + 1))
    border = np.ones((SIDE, SIDE), bool)
    border[1:-1, 1:-1] = False
    assert found.pairs == 30
    assert found.inside == pytest.approx(np.mean([v for v in inside if v is not None]), rel=1e-5)
    assert found.area == pytest.approx(np.mean([v for v in area if v is not None]), rel=1e-5)
    assert found.padding == pytest.approx((maps * black).sum(axis=(1, 2)).mean(), rel=1e-5)
    assert found.border == pytest.approx(maps[:, border].sum(axis=1).mean(), rel=1e-5)
    assert found.uniform_border == pytest.approx(border.mean())
    same = sum(np.bincount(maps[labels == i].reshape(-1, 25).argmax(1)).max() for i in range(1, L + 1))
    assert found.same_position == pytest.approx(same / 30)


def test_image_share_recovers_known_variances():
    """Maps drawn as label effect plus image effect give the share of the image effect's variance."""
    rng = np.random.default_rng(5)
    num_labels, each, sigma_label, sigma_image = 400, 6, 0.02, 0.03
    label = rng.normal(0, sigma_label, (num_labels, 1, SIDE, SIDE))
    maps = 1 / 25 + label + rng.normal(0, sigma_image, (num_labels, each, SIDE, SIDE))
    ids = np.repeat(np.arange(1, num_labels + 1), each)
    none = [None] * len(ids)
    sums = sums_of_maps(
        maps.reshape(-1, SIDE, SIDE), ids, num_labels, none, none, np.zeros((SIDE, SIDE), bool)
    )
    found = attention_statistics(sums, range(1, num_labels + 1))
    expected = sigma_image**2 / (sigma_image**2 + sigma_label**2)
    assert found.image_share == pytest.approx(expected, abs=0.02)


def _peaked(rows, columns, weight=0.9):
    maps = np.full((len(rows), SIDE, SIDE), (1 - weight) / 24)
    maps[np.arange(len(rows)), rows, columns] = weight
    return maps


def test_a_place_of_its_own_for_each_label_is_fixed_though_labels_differ():
    labels = np.arange(40) % L + 1
    found = _statistics(_peaked(labels, np.zeros(40, int)), labels)
    assert found.is_fixed and found.same_position == 1
    assert found.image_share == pytest.approx(0, abs=1e-6)
    assert found.position_weight == pytest.approx(0.9)
    line = found.warning("target")
    assert "target labels" in line and "100 %" in line and "\n" not in line


def test_an_attention_that_moves_with_the_image_is_not_fixed():
    rng = np.random.default_rng(0)
    labels = np.arange(40) % L + 1
    found = _statistics(_peaked(rng.integers(0, SIDE, 40), rng.integers(0, SIDE, 40)), labels)
    assert not found.is_fixed and found.same_position < 0.5 and found.image_share > 0.9


def test_a_fresh_networks_flat_attention_is_not_called_fixed():
    """Before training all maps are alike and all but uniform; that is no place that it looks at."""
    labels = np.arange(40) % L + 1
    found = _statistics(_peaked(np.full(40, 2), np.full(40, 2), weight=0.045), labels)
    assert found.same_position == 1 and not found.is_fixed
    assert found.positions == pytest.approx(25, rel=0.01)


def test_few_pairs_say_nothing():
    labels = np.ones(4, int)
    assert not _statistics(_peaked(labels, labels), labels).is_fixed
    assert _statistics(_peaked(labels, labels), labels, ids=[2]) is None


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_evaluated_images_give_the_statistics_of_their_pixels(fit):
    """Two images, one across: weights times the part of each position that the object covers."""
    rng = np.random.default_rng(4)
    entries, inside, area, padding = [], [], [], []
    for height, width in ((40, 20), (20, 20)):
        truth = rng.choice([0, 1, 3, 255], (height, width)).astype(np.uint8)
        maps = rng.dirichlet(np.ones(SIDE * SIDE), 2).reshape(2, SIDE, SIDE)
        entries.append(attention_entry(maps, (1, 3), truth, fit))
        side = max(height, width)
        square = np.zeros((side, side), np.uint8)
        square[:height, :width] = truth
        shown = np.zeros((side, side), bool)
        shown[:height, :width] = True
        if fit == "stretch":
            square, shown = np.kron(truth, np.ones((1, side // width), np.uint8)), np.ones_like(shown)
        cell = side // SIDE
        spread = np.kron(maps, np.ones((cell, cell))) / cell**2
        padding += [(m * ~shown.reshape(SIDE, cell, SIDE, cell).any(axis=(1, 3))).sum() for m in maps]
        inside += [(s * (square == label)).sum() for s, label in zip(spread, (1, 3), strict=True)]
        area += [(truth == label).sum() / (truth != 255).sum() for label in (1, 3)]
    found = statistics_of_entries(entries, L, (1, 3))
    assert found.pairs == 4
    assert found.inside == pytest.approx(np.mean(inside), abs=1e-4)
    assert found.area == pytest.approx(np.mean(area))
    assert found.padding == pytest.approx(np.mean(padding), abs=1e-4)
    assert (found.padding > 0) == (fit == "pad")
