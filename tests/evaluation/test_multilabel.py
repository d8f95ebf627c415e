import numpy as np
import pytest

from tfseg.evaluation.multilabel import average_precision, multilabel_metrics


def naive_average_precision(scores, truth):
    """For each recall step, the best precision at that recall or above, by trying all thresholds."""
    points = []
    for threshold in sorted(set(scores)):
        said = [s >= threshold for s in scores]
        hits = sum(a and b for a, b in zip(said, truth, strict=True))
        points.append((hits / sum(truth), hits / sum(said)))
    area, last = 0.0, 0.0
    for recall in sorted({r for r, _ in points}):
        area += (recall - last) * max(p for r, p in points if r >= recall)
        last = recall
    return area


@pytest.mark.parametrize("seed", range(6))
def test_average_precision_against_all_thresholds(seed):
    rng = np.random.default_rng(seed)
    scores = np.round(rng.random(25), 1)  # many ties
    truth = rng.random(25) < 0.4
    expected = naive_average_precision(scores.tolist(), truth.tolist())
    np.testing.assert_allclose(average_precision(scores, truth), expected)


def test_average_precision_by_hand():
    scores = [0.9, 0.8, 0.7, 0.6]
    assert average_precision(scores, [True, True, False, False]) == 1.0
    # Hits at ranks 1 and 3: 1/2 * 1 + 1/2 * 2/3.
    np.testing.assert_allclose(average_precision(scores, [1, 0, 1, 0]), 5 / 6)
    # The envelope: at rank 2 precision is 1/2, at rank 3 it is 2/3.
    np.testing.assert_allclose(average_precision(scores, [0, 1, 1, 0]), 2 / 3)
    assert np.isnan(average_precision(scores, [False] * 4))


def test_sets_by_hand():
    truth = [{1, 2}, {3}, {1}, set()]
    predicted = [(1, 2), (1,), (1, 3), (2,)]
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.0, 0.3], [0.8, 0.1, 0.7], [0.2, 0.4, 0.3]])
    metrics = multilabel_metrics(scores, predicted, truth, [1, 2, 3])
    assert metrics["precision"] == 3 / 6
    assert metrics["recall"] == 3 / 4
    assert metrics["f1"] == 2 * 3 / (6 + 4)
    assert metrics["exact_set"] == 1 / 4
    one = metrics["per_label"][1]
    assert one == {"precision": 2 / 3, "recall": 1.0, "average_precision": 1.0, "images": 2}
    assert metrics["per_label"][3]["precision"] == 0
    # Label 3: scores .1 .3* .7 .3, so its image comes second together with another one.
    np.testing.assert_allclose(metrics["per_label"][3]["average_precision"], 1 / 3)
    np.testing.assert_allclose(metrics["map"], (1 + 1 + 1 / 3) / 3)


def test_labels_without_images_do_not_count():
    metrics = multilabel_metrics(np.array([[0.9, 0.1]]), [(1,)], [{1}], [1, 2])
    assert metrics["map"] == 1.0
    assert np.isnan(metrics["per_label"][2]["recall"])


def test_no_images():
    metrics = multilabel_metrics(np.zeros((0, 2)), [], [], [1, 2])
    assert np.isnan(metrics["precision"])
    assert np.isnan(metrics["map"])
