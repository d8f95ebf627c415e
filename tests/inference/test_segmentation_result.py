"""What people see of a result, in Python and in notebooks."""

import io
import re
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from color_network import LABEL_MAP, ColorNetwork, draw, iou
from PIL import Image

from tfseg.data.voc_colors import palette
from tfseg.errors import InputError
from tfseg.inference.networks import PairMaps
from tfseg.inference.segmenter import Segmenter


@pytest.fixture(scope="module")
def drawn():
    return draw(96, 150)


@pytest.fixture(scope="module")
def result(drawn):
    return Segmenter(ColorNetwork(), LABEL_MAP).segment(drawn[0])


class OnlyProbability(ColorNetwork):
    def locate(self, encoded, index, labels):
        return PairMaps(super().locate(encoded, index, labels).probability)


def test_both_are_described_in_one_line(result, drawn):
    segmenter = Segmenter(ColorNetwork(can_classify=False), LABEL_MAP)
    assert repr(segmenter) == "Segmenter(96x96 pixels, 4 labels of colors (3 target), labels must be given)"
    shares = dict(re.findall(r"(\w+) ([\d.]+) %", repr(result)))
    assert repr(result).startswith("Segmentation(96x150 pixels: red ")
    for name, share in shares.items():
        wanted = 100 * (drawn[1] == LABEL_MAP.find(name).id).mean()
        assert float(share) == pytest.approx(wanted, abs=0.5)
    assert repr(segmenter.segment(drawn[0], labels=[])) == "Segmentation(96x150 pixels: no label)"


def test_names_follow_the_labels(drawn):
    found = Segmenter(ColorNetwork(), LABEL_MAP).segment(drawn[0], labels=["blue", "crimson"])
    assert (found.labels, found.names) == ((3, 1), ("blue", "red"))


def test_the_overlay_has_the_labels_colours_inside_and_the_image_outside(result, drawn):
    picture = np.asarray(result.overlay(alpha=1.0))
    assert picture.shape[0] > 96 and picture.shape[1:] == (150, 3)  # A legend stands below.
    for label in result.labels:
        inside = np.asarray(result.label_map) == label
        assert np.all(picture[:96][inside] == palette()[label], axis=-1).mean() > 0.95
    far = ~_grown(result.label_map != 0)
    np.testing.assert_array_equal(picture[:96][far], drawn[0][far])


def _grown(mask, by=3):
    window = np.lib.stride_tricks.sliding_window_view(np.pad(mask, by), (2 * by + 1, 2 * by + 1))
    return window.any(axis=(2, 3))


def test_a_notebook_shows_the_overlay(result):
    shown = Image.open(io.BytesIO(result._repr_png_()))
    np.testing.assert_array_equal(np.asarray(shown), np.asarray(result.overlay()))


def test_the_plot_has_a_row_for_each_label(result, drawn):
    few = Segmenter(ColorNetwork(), LABEL_MAP).segment(drawn[0], labels=["red"])
    assert result.plot().height > 2 * few.plot().height
    assert result.plot().width == few.plot().width
    from_export = Segmenter(OnlyProbability(), LABEL_MAP).segment(drawn[0], labels=["red"])
    assert from_export.plot().width < 0.7 * few.plot().width  # Three columns in the place of five.
    none = Segmenter(ColorNetwork(), LABEL_MAP).segment(drawn[0], labels=[])
    assert none.plot().width < few.plot().width


def test_show(result, monkeypatch):
    shown = []
    monkeypatch.setattr(Image.Image, "show", lambda self: shown.append(("viewer", self.size)))
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    result.show()
    display = SimpleNamespace(
        Image=lambda data: Image.open(io.BytesIO(data)),
        display=lambda picture: shown.append(("notebook", picture.size)),
    )
    ipython = SimpleNamespace(get_ipython=lambda: object(), display=display)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    result.show()
    assert shown == [("viewer", result.plot().size), ("notebook", result.plot().size)]


def test_the_saved_file_holds_the_ids(result, tmp_path):
    result.save(tmp_path / "mask.png")
    with Image.open(tmp_path / "mask.png") as mask:
        assert mask.mode == "P"
        np.testing.assert_array_equal(np.asarray(mask), result.label_map)
    with pytest.raises(InputError, match=r"mask\.jpg: a mask is written as \.png"):
        result.save(tmp_path / "mask.jpg")
    assert [path.name for path in tmp_path.iterdir()] == ["mask.png"]


@pytest.mark.parametrize("maps", ["attention", "densified"])
def test_maps_at_the_images_size(result, drawn, maps):
    small, large = getattr(result, maps), result.upsampled(maps)
    assert large.shape == (3, 96, 150) and large.dtype == np.float32
    assert small.min() <= large.min() and large.max() <= small.max()
    for k, label in enumerate(result.labels):
        middle = (large[k].min() + large[k].max()) / 2
        assert iou(drawn[1] == label, large[k] > middle) > 0.5


def test_an_export_does_not_tell_its_attention(drawn):
    found = Segmenter(OnlyProbability(), LABEL_MAP).segment(drawn[0], labels=["red"])
    with pytest.raises(InputError, match="does not tell attention"):
        found.upsampled()
