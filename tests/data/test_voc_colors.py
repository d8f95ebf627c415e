"""VOC's palette against its published colours."""

import numpy as np
import pytest
from PIL import Image

from tfseg.data.voc_colors import palette, save_indexed_png

PUBLISHED = {
    0: (0, 0, 0),
    1: (128, 0, 0),
    2: (0, 128, 0),
    3: (128, 128, 0),
    4: (0, 0, 128),
    8: (64, 0, 0),
    15: (192, 128, 128),
    16: (0, 64, 0),
    20: (0, 64, 128),
    255: (224, 224, 192),
}


def test_palette_has_the_published_colours():
    colors = palette()
    assert colors.shape == (256, 3) and colors.dtype == np.uint8
    assert {index: tuple(colors[index].tolist()) for index in PUBLISHED} == PUBLISHED
    assert len({tuple(color) for color in colors.tolist()}) == 256


def test_palette_is_the_one_in_the_real_masks(real_sample):
    masks = sorted((real_sample / "VOCdevkit/VOC2012/SegmentationClassAug").glob("*.png"))
    stored = np.array(Image.open(masks[0]).getpalette(), np.uint8).reshape(-1, 3)
    np.testing.assert_array_equal(stored[:21], palette()[:21])


def test_indexed_png_keeps_indices_and_shows_colours(tmp_path):
    mask = np.array([[0, 1, 15], [20, 255, 3]], np.uint8)
    path = tmp_path / "new" / "mask.png"
    save_indexed_png(path, mask)
    image = Image.open(path)
    assert image.mode == "P"
    np.testing.assert_array_equal(np.array(image), mask)
    np.testing.assert_array_equal(np.array(image.convert("RGB"))[0, 2], PUBLISHED[15])
    assert [file.name for file in path.parent.iterdir()] == ["mask.png"]


@pytest.mark.parametrize("mask", [np.zeros((2, 2), np.int64), np.zeros((2, 2, 3), np.uint8)])
def test_only_uint8_planes_are_masks(tmp_path, mask):
    with pytest.raises(TypeError, match=r"uint8 \[H, W\]"):
        save_indexed_png(tmp_path / "mask.png", mask)
