import sys

import numpy as np
import pytest
from color_network import iou

from tfseg.errors import InputError
from tfseg.inference.crf import CrfParameters, crf_parameters, refine


def thin_line(width=4):
    """A dark line on a light ground, grained like a photograph, and probabilities that found it."""
    mask = np.zeros((100, 140), bool)
    mask[48 : 48 + width, 20:120] = True
    image = np.where(mask[..., None], 90, 160).astype(np.uint8).repeat(3, -1)
    # With less grain the appearance kernel holds the line together even unnormalised.
    noise = np.random.default_rng(0).integers(-8, 9, image.shape)
    probabilities = np.where(mask, 0.9, 0.1).astype(np.float32)
    return mask, (image + noise).astype(np.uint8), probabilities


def test_defaults_are_the_authors():
    official = crf_parameters_or_skip("official")
    assert official == CrfParameters(3, 3, 20, 3, 5, 10, "none")
    assert crf_parameters("symmetric") == CrfParameters(normalization="symmetric")
    assert crf_parameters("none") is None
    assert crf_parameters("official", iterations=5).iterations == 5


def crf_parameters_or_skip(mode):
    pytest.importorskip("pydensecrf")
    return crf_parameters(mode)


def test_unnormalised_kernels_erase_a_thin_line_that_normalised_ones_keep():
    mask, image, probabilities = thin_line()
    kept = refine(image, probabilities[None], crf_parameters_or_skip("symmetric"))[0]
    erased = refine(image, probabilities[None], crf_parameters_or_skip("official"))[0]
    assert iou(mask, kept) == 1.0
    assert iou(mask, erased) == 0.0


def test_boundary_snaps_to_the_image_and_nothing_is_turned():
    truth = np.zeros((80, 120), bool)
    truth[10:40, 15:90] = True
    image = np.where(truth[..., None], 60, 190).astype(np.uint8).repeat(3, -1)
    blurred = np.zeros((80, 120), np.float32)
    blurred[13:44, 12:86] = 1  # off by a few pixels
    for _ in range(6):
        for axis in (0, 1):
            blurred = (np.roll(blurred, 1, axis) + blurred + np.roll(blurred, -1, axis)) / 3
    before = iou(truth, blurred > 0.5)
    refined = refine(image, blurred[None].clip(0.05, 0.95), crf_parameters_or_skip("symmetric"))[0]
    assert refined.shape == truth.shape
    assert before < 0.9 < 0.99 < iou(truth, refined)


def test_labels_are_refined_one_by_one():
    _, image, probabilities = thin_line()
    parameters = crf_parameters_or_skip("symmetric")
    both = refine(image, np.stack([probabilities, 1 - probabilities]), parameters)
    np.testing.assert_array_equal(both[0], ~both[1])
    np.testing.assert_array_equal(both[:1], refine(image, probabilities[None], parameters))
    assert refine(image, np.zeros((0, 100, 140)), parameters).shape == (0, 100, 140)


def test_read_only_and_strided_images():
    _, image, probabilities = thin_line()
    parameters = crf_parameters_or_skip("symmetric")
    expected = refine(image, probabilities[None], parameters)
    frozen = image.copy()
    frozen.flags.writeable = False
    mirrored = image[:, ::-1].copy()[:, ::-1]
    for same in (frozen, mirrored):
        np.testing.assert_array_equal(refine(same, probabilities[None], parameters), expected)


def test_certain_probabilities_stay_finite():
    _, image, _ = thin_line()
    certain = np.zeros((100, 140), np.float32)
    certain[:, :70] = 1
    refined = refine(image[:, :, :] * 0, certain[None], crf_parameters_or_skip("symmetric"))[0]
    np.testing.assert_array_equal(refined, certain > 0.5)


def test_missing_pydensecrf_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    with pytest.raises(InputError, match="pip install pydensecrf2"):
        crf_parameters("official")
    assert crf_parameters("none") is None


@pytest.mark.parametrize("change", [{"gaussian_stddev": 0}, {"iterations": -1}, {"normalization": "half"}])
def test_impossible_parameters(change):
    with pytest.raises(InputError, match=next(iter(change))):
        CrfParameters(**change)


def test_unknown_mode():
    with pytest.raises(InputError, match="none, official, symmetric"):
        crf_parameters("maybe")
