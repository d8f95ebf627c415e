import io

import numpy as np
import pytest
from color_network import draw, iou
from PIL import Image

from tfseg.data.voc_colors import palette
from tfseg.inference.pictures import (
    Cell,
    encode_png,
    fit,
    heat,
    legend,
    mask_picture,
    overlay,
    sheet,
    stretch,
)


def test_mask_picture_is_in_voc_colors():
    picture = mask_picture(np.uint8([[0, 1, 15, 255]]))
    np.testing.assert_array_equal(picture[0], [[0, 0, 0], [128, 0, 0], [192, 128, 128], [224, 224, 192]])


def test_overlay_touches_the_object_and_its_rim_only():
    image, mask = draw(100, 160)
    alone = np.where(mask == 2, mask, 0).astype(np.uint8)
    drawn = overlay(image, alone)
    changed = (drawn != image).any(axis=-1)
    assert changed[mask == 2].all()
    y, x = np.nonzero(alone)
    far = np.ones_like(changed)
    far[y.min() - 2 : y.max() + 3, x.min() - 2 : x.max() + 3] = False
    assert not changed[far].any()
    # Inside, half of the photograph and half of the label's colour.
    middle = drawn[65, 128].astype(int)
    np.testing.assert_allclose(middle, (image[65, 128] + palette()[2].astype(int)) / 2, atol=1)


def test_overlay_leaves_image_and_ignored_pixels():
    image, _ = draw(40, 40)
    before = image.copy()
    ignored = np.full((40, 40), 255, np.uint8)
    np.testing.assert_array_equal(overlay(image, ignored), image)
    np.testing.assert_array_equal(image, before)


def test_heat_is_reddest_where_the_map_is_highest():
    heatmap = np.zeros((6, 6), np.float32)
    heatmap[1, 4] = 1  # of the padded square: a 60 x 120 image fills its upper half
    drawn = heat(np.full((60, 120, 3), 128, np.uint8), heatmap, alpha=1.0).astype(int)
    redness = drawn[..., 0] - drawn[..., 2]
    y, x = np.unravel_index(redness.argmax(), redness.shape)
    assert 20 <= y < 40
    assert 80 <= x < 100
    assert drawn.shape == (60, 120, 3)


def test_constant_heat_is_finite():
    assert heat(np.zeros((5, 5, 3), np.uint8), np.ones((2, 2), np.float32)).dtype == np.uint8


def test_legend_adds_a_strip_with_the_colors():
    image, _ = draw(120, 200)
    drawn = legend(image, [(1, "red 5.0 %"), (3, "blue 4.0 %")])
    np.testing.assert_array_equal(drawn[:120], image)
    strip = {tuple(color) for color in drawn[120:].reshape(-1, 3).tolist()}
    assert tuple(palette()[1].tolist()) in strip
    assert tuple(palette()[3].tolist()) in strip
    assert legend(image, []).shape[0] > 120


def test_legend_breaks_lines():
    image = np.zeros((50, 120, 3), np.uint8)
    many = [(i, f"label number {i}") for i in range(1, 8)]
    assert legend(image, many).shape[0] > legend(image, many[:1]).shape[0] + 6 * 12


def color(value):
    return np.uint8([value, 255 - value, 0])  # text is grey


def plain(value, height, width, **changes):
    return Cell(np.tile(color(value), (height, width, 1)), **changes)


def test_sheet_places_cells_and_keeps_to_the_page():
    rows = [[plain(60, 100, 50, caption="a"), plain(90, 100, 100)], [plain(120, 50, 100)]]
    drawn = sheet(rows, ["one", "two"], ["first", "$x"], [(1, "red")] * 30, dpi=300, width=6.9, cell=1.7)
    assert drawn.shape[1] <= 6.9 * 300
    boxes = {}
    for value in (60, 90, 120):
        there = np.argwhere((drawn == color(value)).all(axis=-1))
        boxes[value] = *there.min(axis=0), *there.max(axis=0)
        area = np.prod(there.max(axis=0) - there.min(axis=0) + 1)
        assert area == len(there)  # nothing is drawn over it
    side = round(1.7 * 300)
    assert boxes[90][2] - boxes[90][0] + 1 == side
    assert boxes[60][3] - boxes[60][1] + 1 == side // 2
    assert boxes[60][3] < boxes[90][1]
    assert boxes[120][0] > boxes[60][2]
    assert (boxes[60][1] + boxes[60][3]) / 2 == pytest.approx((boxes[120][1] + boxes[120][3]) / 2, abs=2)


def test_sheet_shrinks_cells_to_its_width():
    drawn = sheet([[plain(v, 80, 80) for v in (10, 20, 30, 40)]], dpi=100, width=4)
    assert drawn.shape[1] <= 400
    assert (drawn == color(40)).all(axis=-1).sum() > 80 * 80


def test_ring_lies_around_its_point():
    cells = [plain(60, 50, 90), plain(60, 50, 90, mark=(60.0, 20.0))]
    drawn = sheet([cells], cell=1.8)
    inside = np.argwhere((drawn == color(60)).all(axis=-1))
    left = inside[:, 1].max() - 179
    picture = drawn[inside[:, 0].min() : inside[:, 0].max() + 1, left : left + 180]
    changed = np.argwhere((picture != color(60)).any(axis=-1))
    np.testing.assert_allclose(changed.mean(axis=0), (40, 120), atol=1.5)


def test_stretch_reaches_0_and_1_within_each_map_of_any_sign():
    stretched = stretch(np.array([[[3.0, 4.0, 5.0]], [[2.0, 2.0, 2.0]], [[-3.0, -2.0, -1.0]], [[0, 0, 0]]]))
    np.testing.assert_allclose(stretched, [[[0, 0.5, 1]], [[0, 0, 0]], [[0, 0.5, 1]], [[0, 0, 0]]])


def test_flat_pictures_keep_labels_and_place():
    image, mask = draw(50, 90)
    for side in (30, 240):
        fitted = fit(mask, side, flat=True)
        assert max(fitted.shape) == side
        assert set(np.unique(fitted)) == set(np.unique(mask))
        assert fitted.shape == fit(image, side).shape[:2]
        picture = fit(mask_picture(mask), side, flat=True)
        for label in (1, 2, 3):
            assert iou((picture == palette()[label]).all(axis=-1), fitted == label) == 1


def test_encoded_picture_knows_its_size():
    picture = Image.open(io.BytesIO(encode_png(np.zeros((30, 60, 3), np.uint8), dpi=300)))
    assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)
