import numpy as np
import pytest
from color_network import LABEL_MAP

from tfseg.errors import InputError
from tfseg.inference.postprocessing import predicted_labels


def test_threshold_includes_its_value():
    assert predicted_labels(np.array([0.6, 0.59, 0.9, 0.99]), (1, 2, 3)) == (1, 3)


def test_argmax_when_none_reaches_it():
    assert predicted_labels(np.array([0.1, 0.3, 0.2, 0.5]), (1, 2, 3)) == (2,)


def test_other_domain_is_never_predicted():
    scores = np.array([0.1, 0.2, 0.3, 0.99])
    assert predicted_labels(scores, LABEL_MAP.allowed_ids("target")) == (3,)
    assert predicted_labels(scores, LABEL_MAP.allowed_ids("source")) == (4,)
    assert predicted_labels(scores, LABEL_MAP.allowed_ids("all")) == (4,)


def test_domains():
    assert LABEL_MAP.allowed_ids() == (1, 2, 3)
    assert LABEL_MAP.allowed_ids("all") == (1, 2, 3, 4)
    with pytest.raises(InputError, match="target, source, all"):
        LABEL_MAP.allowed_ids("both")


def test_ids_names_and_aliases():
    assert LABEL_MAP.resolve(["blue", "crimson", np.int64(2), 1, "3"]) == (3, 1, 2)
    assert LABEL_MAP.resolve("blue") == (3,)
    assert LABEL_MAP.resolve(4) == (4,)
    assert LABEL_MAP.resolve([]) == ()


@pytest.mark.parametrize("label", ["gren", 0, 5, -1, "5", 1.5, None])
def test_unknown_labels_list_what_is_allowed(label):
    with pytest.raises(InputError, match="ids 1 to 4 and the names red, green, blue, yellow"):
        LABEL_MAP.resolve([label])


def test_a_near_miss_is_suggested():
    with pytest.raises(InputError, match="did you mean green"):
        LABEL_MAP.resolve(["gren"])
