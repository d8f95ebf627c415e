import numpy as np

from tfseg.evaluation.attention_control import THRESHOLDS, threshold_maps


def test_floor_of_the_densified_map_is_no_handicap():
    peak = np.zeros((1, 4, 4), np.float32)
    peak[0, 0, 0] = 1
    by_threshold = threshold_maps(peak, [5], 40, 40)
    with_floor = threshold_maps(peak * 0.1 + 7, [5], 40, 40)
    for threshold in THRESHOLDS:
        assert (by_threshold[threshold] != with_floor[threshold]).mean() < 0.002


def test_padding_below_takes_no_part():
    # The highest value lies below a wide image, where only padding is.
    maps = np.zeros((1, 8, 8), np.float32)
    maps[0, 1, 2] = 1
    maps[0, 7, 7] = 100
    found = threshold_maps(maps, [2], 20, 80)[0.5]
    rows, columns = np.nonzero(found)
    assert found.shape == (20, 80)
    assert set(np.unique(found)) == {0, 2}
    assert 10 <= rows.mean() <= 19
    assert 20 <= columns.mean() <= 30


def test_highest_label_wins_above_the_threshold():
    maps = np.zeros((2, 2, 2), np.float32)
    maps[0] = [[1.0, 0.6], [0.0, 0.0]]
    maps[1] = [[0.0, 0.7], [0.0, 1.0]]
    by_threshold = threshold_maps(maps, [3, 8], 2, 2)
    np.testing.assert_array_equal(by_threshold[0.5], [[3, 8], [0, 8]])
    np.testing.assert_array_equal(by_threshold[0.9], [[3, 0], [0, 8]])


def test_no_label():
    by_threshold = threshold_maps(np.zeros((0, 1, 1)), (), 3, 5)
    assert all(not label_map.any() for label_map in by_threshold.values())
    assert by_threshold[0.5].shape == (3, 5)
