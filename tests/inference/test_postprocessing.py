import numpy as np

from tfseg.inference.postprocessing import merge, scale_background

P = np.array([[[0.9, 0.6, 0.4, 0.0]], [[0.8, 0.7, 0.45, 0.0]]], np.float32)


def test_half_the_background_is_ln2_on_the_foreground_logit():
    e0, e1 = np.exp([0.3, -2.0, 1.5]), np.exp([0.1, 1.0, -1.0])
    expected = 2 * e1 / (e0 + 2 * e1)
    np.testing.assert_allclose(scale_background(e1 / (e0 + e1)), expected, rtol=1e-6)
    logit = np.log(expected / (1 - expected))
    np.testing.assert_allclose(logit, np.log(e1 / e0) + np.log(2), rtol=1e-6)


def test_foreground_wins_above_a_third():
    np.testing.assert_allclose(scale_background(1 / 3), 0.5, rtol=1e-6)
    np.testing.assert_allclose(scale_background([0.0, 1.0]), [0, 1])
    np.testing.assert_allclose(scale_background(P, factor=1.0), P, rtol=1e-6)


def test_merge_without_crf_thresholds():
    # Above 1/2 the highest wins; nothing above 1/2 is background.
    np.testing.assert_array_equal(merge(P, [7, 3]), [[7, 3, 0, 0]])


def test_merge_with_crf_masks_scores_from_before_it():
    foreground = np.array([[[False, True, True, True]], [[True, True, True, False]]])
    # 1: the CRF took label 7 away; 3: it may add what is below 1/2; 4: a score of 0 is background.
    np.testing.assert_array_equal(merge(P, [7, 3], foreground), [[3, 3, 3, 0]])


def test_no_label_is_background():
    merged = merge(np.zeros((0, 2, 3), np.float32), ())
    np.testing.assert_array_equal(merged, np.zeros((2, 3)))
    assert merged.dtype == np.uint8


def test_ties_go_to_the_earlier_label():
    np.testing.assert_array_equal(merge(np.full((2, 1, 1), 0.8), [9, 4]), [[9]])
