import numpy as np
import pytest

from tfseg.data.labels import Label, LabelMap
from tfseg.evaluation.attention_shares import attention_entry, mean_shares, uniform_border


def by_pixels(weights, mask, fine):
    """The definition on a raster so fine that pixels and cells both consist of whole points."""
    side = max(mask.shape)
    square = np.zeros((side, side), bool)
    square[: mask.shape[0], : mask.shape[1]] = mask
    points = np.kron(square, np.ones((fine // side,) * 2))
    h, w = weights.shape
    spread = np.kron(weights, np.ones((fine // h, fine // w))) / (fine // h * (fine // w))
    return (points * spread).sum()


@pytest.mark.parametrize("height, width", [(10, 10), (10, 7), (3, 10)])
def test_inside_counts_points_of_a_fine_raster(height, width):
    rng = np.random.default_rng(height * width)
    truth = rng.choice([0, 2, 5, 255], (height, width)).astype(np.uint8)
    weights = rng.dirichlet(np.ones(12), 2).reshape(2, 4, 3)
    entry = attention_entry(weights, (2, 5), truth)
    for k, (label, one) in enumerate(zip((2, 5), weights, strict=True)):
        assert entry["inside"][k] == pytest.approx(by_pixels(one, truth == label, 60))
        assert entry["border"][k] == pytest.approx(one.sum() - one[1, 1] - one[2, 1])
        assert entry["area"][k] == pytest.approx((truth == label).sum() / (truth != 255).sum())


def test_all_on_the_object_and_all_on_the_border():
    attention = np.zeros((2, 4, 4))
    attention[0, 1, 2] = 1
    attention[1, 3, 3] = 1
    truth = np.zeros((8, 8), np.uint8)
    truth[2:4, 4:6] = 1
    truth[0, 0] = 3
    entry = attention_entry(attention, (1, 3), truth)
    assert (entry["inside"], entry["border"]) == ([1.0, 0.0], [0.0, 1.0])


def test_a_label_that_is_not_there_has_no_share():
    entry = attention_entry(np.full((1, 2, 2), 0.25), (4,), np.zeros((5, 5), np.uint8))
    assert entry["inside"] == entry["border"] == entry["area"] == [None]


def test_uniform_attention_has_the_uniform_border():
    truth = np.ones((6, 6), np.uint8)
    entry = attention_entry(np.full((1, 12, 12), 1 / 144), (1,), truth)
    assert (entry["inside"][0], entry["border"][0]) == pytest.approx((1.0, uniform_border(12, 12)))
    assert uniform_border(12, 12) == pytest.approx(44 / 144)
    assert uniform_border(1, 5) == 1.0


def test_means_are_over_the_images_that_show_a_label():
    label_map = LabelMap("two", (Label(1, "dog", "target"), Label(2, "cat", "target")))
    maps = np.zeros((2, 3, 5)).tolist()
    entries = [
        {"labels": [1, 2], "maps": maps, "inside": [0.2, 1.0], "border": [0.0, 1.0]},
        {"labels": [], "maps": [], "inside": [], "border": []},
        {"labels": [2, 1], "maps": maps, "inside": [None, 0.4], "border": [None, 0.1]},
    ]
    means = mean_shares(entries, label_map)
    assert list(means["by_class"]["inside"]) == ["dog", "cat"]
    assert means["by_class"]["inside"] == pytest.approx({"dog": 0.3, "cat": 1.0})
    assert means["by_class"]["border"] == pytest.approx({"dog": 0.05, "cat": 1.0})
    assert (means["inside"], means["border"]) == pytest.approx((0.65, 0.525))
    assert means["uniform_border"] == pytest.approx(12 / 15)
    nothing = {"uniform_border": None, "by_class": {"inside": {}, "border": {}}}
    assert mean_shares([entries[1]], label_map) == nothing


def test_on_a_stretched_square_every_position_is_in_the_image():
    truth = np.zeros((3, 10), np.uint8)
    truth[:, :5] = 7
    attention = np.zeros((1, 4, 4))
    attention[:, :, :2] = 1 / 8
    assert attention_entry(attention, (7,), truth, "stretch")["inside"] == pytest.approx([1.0])
    assert attention_entry(attention, (7,), truth, "pad")["inside"] == pytest.approx([0.3])
