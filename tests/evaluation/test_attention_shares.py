import numpy as np
import pytest

from tfseg.evaluation.attention_shares import attention_shares, mean_shares, uniform_border


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
    shares = attention_shares(weights, (2, 5), truth)
    for label, one in zip((2, 5), weights, strict=True):
        assert shares[label].inside == pytest.approx(by_pixels(one, truth == label, 60))
        assert shares[label].border == pytest.approx(one.sum() - one[1, 1] - one[2, 1])


def test_all_on_the_object_and_all_on_the_border():
    attention = np.zeros((2, 4, 4))
    attention[0, 1, 2] = 1
    attention[1, 3, 3] = 1
    truth = np.zeros((8, 8), np.uint8)
    truth[2:4, 4:6] = 1
    truth[0, 0] = 3
    shares = attention_shares(attention, (1, 3), truth)
    assert shares == {1: (1.0, 0.0), 3: (0.0, 1.0)}


def test_a_label_that_is_not_there_has_no_share():
    assert attention_shares(np.full((1, 2, 2), 0.25), (4,), np.zeros((5, 5), np.uint8)) == {}


def test_uniform_attention_has_the_uniform_border():
    truth = np.ones((6, 6), np.uint8)
    shares = attention_shares(np.full((1, 12, 12), 1 / 144), (1,), truth)
    assert shares[1] == pytest.approx((1.0, uniform_border(12, 12)))
    assert uniform_border(12, 12) == pytest.approx(44 / 144)
    assert uniform_border(1, 5) == 1.0


def test_means_are_over_the_images_that_show_a_label():
    means = mean_shares([{"1": [0.2, 0.0], "2": [1.0, 1.0]}, {}, {"1": [0.4, 0.1]}])
    assert list(means) == [1, 2]
    np.testing.assert_allclose(means[1], (0.3, 0.05))
    np.testing.assert_allclose(means[2], (1.0, 1.0))


def test_on_a_stretched_square_every_position_is_in_the_image():
    truth = np.zeros((3, 10), np.uint8)
    truth[:, :5] = 7
    attention = np.zeros((1, 4, 4))
    attention[:, :, :2] = 1 / 8
    assert attention_shares(attention, (7,), truth, "stretch")[7].inside == pytest.approx(1.0)
    assert attention_shares(attention, (7,), truth, "pad")[7].inside == pytest.approx(0.3)
