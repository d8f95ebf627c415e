"""Masks from COCO's three forms of segmentation, against rasterisers of other makers."""

import numpy as np
import pytest
from matplotlib.path import Path as Outline
from PIL import Image, ImageDraw

from tfrecords.coco_masks import Region, decode, paint
from tfseg.errors import InputError

HEIGHT, WIDTH = 40, 60
BOX = np.zeros((HEIGHT, WIDTH), bool)
BOX[5:25, 10:40] = True
CONCAVE = [5.0, 5.0, 50.0, 8.0, 30.0, 20.0, 52.0, 35.0, 8.0, 33.0, 20.0, 18.0]


def column_runs(mask):
    """Run lengths by walking the pixels one by one, column by column."""
    runs, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


def compressed(runs):
    """COCO's string of run lengths, written from its description."""
    text = ""
    for i, run in enumerate(runs):
        number = run - runs[i - 2] if i > 2 else run
        while True:
            digit = number & 31
            number >>= 5
            done = number == (-1 if digit & 16 else 0)
            text += chr(48 + (digit if done else digit | 32))
            if done:
                break
    return text


def rle(counts, size=(HEIGHT, WIDTH)):
    return {"size": list(size), "counts": counts}


def disc(x, y, radius):
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    return (columns - x) ** 2 + (rows - y) ** 2 < radius**2


def test_a_rectangle_as_polygon_covers_its_pixels_exactly():
    found = decode([[10, 5, 40, 5, 40, 25, 10, 25]], HEIGHT, WIDTH, "here")
    np.testing.assert_array_equal(found, BOX)


def test_a_concave_polygon_against_two_other_rasterisers():
    found = decode([CONCAVE], HEIGHT, WIDTH, "here")
    corners = np.array(CONCAVE).reshape(-1, 2)
    centres = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), axis=-1)
    inside = Outline(corners).contains_points(centres.reshape(-1, 2)).reshape(HEIGHT, WIDTH)
    fine = Image.new("1", (WIDTH * 8, HEIGHT * 8))
    ImageDraw.Draw(fine).polygon((corners * 8 - 0.5).ravel().tolist(), fill=1)
    covered = np.asarray(fine).reshape(HEIGHT, 8, WIDTH, 8).mean(axis=(1, 3)) > 0.5
    for other in (inside, covered):
        differing = found != other
        # Only pixels that the boundary crosses may differ.
        interior = other.copy()
        interior[1:-1, 1:-1] &= other[:-2, 1:-1] & other[2:, 1:-1] & other[1:-1, :-2] & other[1:-1, 2:]
        assert not (differing & interior).any()
        assert differing.sum() < 0.08 * other.sum()


def test_several_polygons_are_united_and_may_leave_the_image():
    found = decode([[0, 0, 9, 0, 9, 9, 0, 9], [50, 30, 80, 30, 80, 60, 50, 60]], HEIGHT, WIDTH, "here")
    expected = np.zeros((HEIGHT, WIDTH), bool)
    expected[:9, :9] = True
    expected[30:, 50:] = True
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    "mask",
    [
        BOX,
        disc(30, 20, 14) & ~disc(30, 20, 7),
        disc(0, 0, 10),
        np.ones((HEIGHT, WIDTH), bool),
        np.zeros((HEIGHT, WIDTH), bool),
        np.random.default_rng(0).random((HEIGHT, WIDTH)) < 0.5,
    ],
    ids=["box", "ring", "corner", "full", "empty", "noise"],
)
def test_both_forms_of_run_lengths(mask):
    runs = column_runs(mask)
    np.testing.assert_array_equal(decode(rle(runs), HEIGHT, WIDTH, "here"), mask)
    np.testing.assert_array_equal(decode(rle(compressed(runs)), HEIGHT, WIDTH, "here"), mask)


def test_runs_by_hand():
    # 2 x 3 pixels, columns first: 0 1 | 1 1 | 0 0.
    found = decode({"size": [2, 3], "counts": [1, 3, 2]}, 2, 3, "here")
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 1, 0]])
    found = decode({"size": [2, 3], "counts": "132"}, 2, 3, "here")
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 1, 0]])


def test_small_objects_lie_on_large_ones_whatever_their_order():
    large = Region(1, 7, False, rle(column_runs(BOX)))
    small = Region(2, 9, False, rle(column_runs(disc(20, 15, 5))))
    expected = np.where(disc(20, 15, 5), 9, np.where(BOX, 7, 0))
    for regions in ([large, small], [small, large]):
        found = paint(regions, HEIGHT, WIDTH, "here")
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected)


def test_of_two_equal_areas_the_later_lies_on_top():
    first = Region(1, 7, False, rle(column_runs(BOX)))
    second = Region(2, 9, False, rle(column_runs(BOX)))
    np.testing.assert_array_equal(paint([first, second], HEIGHT, WIDTH, "here"), 9 * BOX)


def test_crowds_are_ignored_pixels_below_all_objects():
    crowd = Region(1, 7, True, rle(column_runs(disc(20, 15, 5))))
    large = Region(2, 9, False, rle(column_runs(BOX)))
    apart = Region(3, 7, True, rle(column_runs(disc(50, 30, 6))))
    found = paint([large, crowd, apart], HEIGHT, WIDTH, "here")
    np.testing.assert_array_equal(found, np.where(disc(50, 30, 6), 255, 9 * BOX))


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        (None, "polygons or RLE"),
        ("3", "polygons or RLE"),
        ([], "no polygon"),
        ([[]], "at least 3 points"),
        ([[1, 2, 3, 4]], "at least 3 points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "at least 3 points"),
        ([1, 2, 3, 4, 5, 6], "at least 3 points"),
        ([[1, 2, 3, 4, 5, "6"]], "coordinate '6'"),
        ([[1, 2, 3, 4, 5, None]], "coordinate None"),
        ([[1, 2, 3, 4, 5, float("nan")]], "coordinate nan"),
        ([[1, 2, 3, 4, 5, float("inf")]], "coordinate inf"),
        ([[1, 2, 3, 4, 5, 10**400]], "coordinate 1000"),
        ([[1, 2, 3, 4, 5, 1e9]], r"coordinate 1000000000\.0"),
        ({}, "RLE of size None"),
        ({"size": [WIDTH, HEIGHT], "counts": [HEIGHT * WIDTH]}, "RLE of size"),
        ({"size": HEIGHT, "counts": [HEIGHT * WIDTH]}, "RLE of size"),
        (rle(None), "string or numbers >= 0"),
        (rle([HEIGHT * WIDTH, "0"]), "string or numbers >= 0"),
        (rle([-1, HEIGHT * WIDTH + 1]), "string or numbers >= 0"),
        (rle([1.5, HEIGHT * WIDTH - 1.5]), "string or numbers >= 0"),
        (rle([True, HEIGHT * WIDTH - 1]), "string or numbers >= 0"),
        (rle([HEIGHT * WIDTH - 1]), "add up to 2399 pixels"),
        (rle([HEIGHT * WIDTH, 1]), "add up to 2401 pixels"),
        (rle(""), "add up to 0 pixels"),
        (rle(compressed([100, 7, 20])), "add up to 127 pixels"),
        (rle(compressed([100, 7, HEIGHT * WIDTH])), "add up to 2507 pixels"),
        (rle(compressed([HEIGHT * WIDTH + 5, -5])), "string or numbers >= 0"),
        (rle(compressed([HEIGHT * WIDTH])[:-1]), "ends within a number"),
        (rle("1\u00e9"), "malformed at the character"),
        (rle("1 2"), "malformed at the character"),
        (rle("P" * 20 + "0"), "malformed at the character"),
    ],
)
def test_malformed_segmentations_are_refused(segmentation, message):
    with pytest.raises(InputError, match=message) as caught:
        decode(segmentation, HEIGHT, WIDTH, "file.json: image 3, annotation 4")
    assert str(caught.value).startswith("file.json: image 3, annotation 4: ")
    assert len(str(caught.value)) < 300
