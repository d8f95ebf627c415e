import numpy as np
import pytest
from color_network import LABEL_MAP

from tfseg.errors import InputError
from tfseg.inference.labels import domain_ids, predicted_labels, resolve_labels


def test_threshold_includes_its_value():
    assert predicted_labels(np.array([0.6, 0.59, 0.9, 0.99]), (1, 2, 3)) == (1, 3)


def test_argmax_when_none_reaches_it():
    assert predicted_labels(np.array([0.1, 0.3, 0.2, 0.5]), (1, 2, 3)) == (2,)


def test_other_domain_is_never_predicted():
    scores = np.array([0.1, 0.2, 0.3, 0.99])
    assert predicted_labels(scores, domain_ids(LABEL_MAP, "target")) == (3,)
    assert predicted_labels(scores, domain_ids(LABEL_MAP, "source")) == (4,)
    assert predicted_labels(scores, domain_ids(LABEL_MAP, "all")) == (4,)


def test_domains():
    assert domain_ids(LABEL_MAP) == (1, 2, 3)
    assert domain_ids(LABEL_MAP, "all") == (1, 2, 3, 4)
    with pytest.raises(InputError, match="target, source, all"):
        domain_ids(LABEL_MAP, "both")


def test_ids_names_and_aliases():
    assert resolve_labels(LABEL_MAP, ["blue", "crimson", np.int64(2), 1, "3"]) == (3, 1, 2)
    assert resolve_labels(LABEL_MAP, "blue") == (3,)
    assert resolve_labels(LABEL_MAP, 4) == (4,)
    assert resolve_labels(LABEL_MAP, []) == ()


@pytest.mark.parametrize("label", ["gren", 0, 5, -1, "5", 1.5, None])
def test_unknown_labels_list_what_is_allowed(label):
    with pytest.raises(InputError, match="ids 1 to 4 and the names red, green, blue, yellow"):
        resolve_labels(LABEL_MAP, [label])


def test_a_near_miss_is_suggested():
    with pytest.raises(InputError, match="did you mean green"):
        resolve_labels(LABEL_MAP, ["gren"])
