import numpy as np
from color_network import LABEL_MAP, draw

from tfseg.data.voc_colors import palette
from tfseg.inference.pictures import grid, heat, legend, legend_entries, mask_picture, overlay


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
    image, mask = draw(120, 200)
    entries = legend_entries(LABEL_MAP, (1, 3), mask)
    assert entries[0][1].startswith("red ")
    assert entries[0][1].endswith(f"{100 * (mask == 1).mean():.1f} %")
    drawn = legend(image, entries)
    np.testing.assert_array_equal(drawn[:120], image)
    strip = {tuple(color) for color in drawn[120:].reshape(-1, 3).tolist()}
    assert tuple(palette()[1].tolist()) in strip
    assert tuple(palette()[3].tolist()) in strip
    assert legend(image, []).shape[0] > 120


def test_legend_breaks_lines():
    image = np.zeros((50, 120, 3), np.uint8)
    many = [(i, f"label number {i}") for i in range(1, 8)]
    assert legend(image, many).shape[0] > legend(image, many[:1]).shape[0] + 6 * 12


def test_grid_places_pictures_in_rows_and_columns():
    red, green = (np.full((h, w, 3), c, np.uint8) for h, w, c in ((40, 80, 60), (80, 40, 90)))
    sheet = grid([[red, green], [None, red]], ["one", "two"], ["first", "second"], cell=100)
    assert sheet.dtype == np.uint8
    dark = sheet.min(axis=-1)
    columns = np.flatnonzero((dark == 90).sum(axis=0) >= 100)
    assert len(columns) == 50  # 80 x 40 fitted into 100 x 100
    rows = np.flatnonzero((dark == 60).sum(axis=1) >= 100)
    assert len(rows) == 100  # twice 50 rows of the 100 x 50 picture
