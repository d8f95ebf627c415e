import numpy as np
import pytest

from tfseg.evaluation.miou import ConfusionMatrix, count_pairs


def by_sets(pairs, classes):
    """IoU by sets of pixels over the whole split."""
    result = []
    for c in classes:
        there, said = set(), set()
        for number, (truth, prediction) in enumerate(pairs):
            for y in range(truth.shape[0]):
                for x in range(truth.shape[1]):
                    if truth[y, x] == 255:
                        continue
                    if truth[y, x] == c:
                        there.add((number, y, x))
                    if prediction[y, x] == c:
                        said.add((number, y, x))
        result.append(len(there & said) / len(there | said) if there | said else float("nan"))
    return np.array(result)


def random_pairs(truth_values, prediction_values, seed=0):
    rng = np.random.default_rng(seed)
    shapes = [(9, 13), (20, 7), (1, 30)]
    return [
        (rng.choice(np.uint8(truth_values), s), rng.choice(np.uint8(prediction_values), s)) for s in shapes
    ]


@pytest.mark.parametrize(
    ("truth_values", "prediction_values"),
    [
        ([0, 1, 2, 3, 255], [0, 1, 2, 3]),
        ([0, 1, 255], [0, 2]),
        ([1, 2], [0, 3, 7]),
        ([0, 3], [0, 3, 254]),
    ],
)
def test_against_sets_of_pixels(truth_values, prediction_values):
    pairs = random_pairs(truth_values, prediction_values)
    matrix = ConfusionMatrix([3, 1, 2])
    for truth, prediction in pairs:
        matrix.add(truth, prediction)
    assert matrix.classes == (0, 1, 2, 3)
    expected = by_sets(pairs, matrix.classes)
    np.testing.assert_allclose(matrix.iou(), expected)
    np.testing.assert_allclose(matrix.mean_iou(), np.nanmean(expected))


def test_one_matrix_over_the_split_is_not_the_mean_over_images():
    matrix = ConfusionMatrix([1])
    matrix.add(np.uint8([[1, 1, 1, 1]]), np.uint8([[1, 1, 1, 1]]))
    matrix.add(np.uint8([[1, 0, 0, 0]]), np.uint8([[0, 0, 0, 0]]))
    np.testing.assert_allclose(matrix.iou(), [3 / 4, 4 / 5])


def test_ignored_pixels_count_nowhere():
    matrix = ConfusionMatrix([1])
    matrix.add(np.uint8([[255, 255, 1, 0]]), np.uint8([[1, 0, 1, 0]]))
    np.testing.assert_array_equal(matrix.matrix, [[1, 0, 0], [0, 1, 0]])
    assert matrix.mean_iou() == 1.0


def test_foreign_predictions_are_misses_of_the_true_class_only():
    matrix = ConfusionMatrix([1, 2])
    matrix.add(np.uint8([[1, 1, 2, 0]]), np.uint8([[9, 1, 2, 0]]))
    np.testing.assert_allclose(matrix.iou(), [1, 1 / 2, 1])
    np.testing.assert_array_equal(matrix.matrix[:, -1], [0, 1, 0])
    assert matrix.pixel_accuracy() == 3 / 4


def test_class_in_neither_is_left_out_but_false_alarms_count():
    matrix = ConfusionMatrix([1, 2])
    matrix.add(np.uint8([[0, 0, 0, 0]]), np.uint8([[0, 0, 0, 1]]))
    np.testing.assert_allclose(matrix.iou(), [3 / 4, 0, np.nan])
    assert matrix.mean_iou() == 3 / 8


def test_nothing_at_all():
    matrix = ConfusionMatrix([1])
    matrix.add(np.uint8([[255]]), np.uint8([[1]]))
    assert np.isnan(matrix.mean_iou())
    assert np.isnan(matrix.pixel_accuracy())


def test_counts_can_be_kept_and_added_later():
    pairs = random_pairs([0, 1, 2, 255], [0, 1, 2, 5], seed=3)
    at_once, later = ConfusionMatrix([1, 2]), ConfusionMatrix([1, 2])
    for truth, prediction in pairs:
        at_once.add(truth, prediction)
        counts = count_pairs(truth, prediction)
        assert sum(count for _, _, count in counts) == (truth != 255).sum()
        later.add_counts(counts)
    np.testing.assert_array_equal(at_once.matrix, later.matrix)


def test_refuses_what_does_not_fit():
    matrix = ConfusionMatrix([1])
    with pytest.raises(ValueError, match="one size"):
        matrix.add(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8))
    with pytest.raises(ValueError, match="uint8"):
        matrix.add(np.zeros((2, 3), np.int32), np.zeros((2, 3), np.uint8))
    with pytest.raises(ValueError, match="holds 4"):
        matrix.add(np.uint8([[4]]), np.uint8([[1]]))
