"""Mask files in the dresses that tools give them: read rightly, or refused with the flag that decides."""

import image_zoo
import numpy as np
import pytest
from PIL import Image

from tfrecords.masks import MaskRules, check_stored_mask, encode_mask, parse_mask_values, read_mask
from tfseg.data.labels import Label, LabelMap
from tfseg.data.voc_colors import palette, save_indexed_png
from tfseg.errors import InputError

LABELS = LabelMap(
    "pets", (Label(1, "cat", "target"), Label(2, "dog", "target", ("puppy",)), Label(3, "cup", "source"))
)
IDS = (1, 2)
RULES = MaskRules(IDS)
SHAPE = (4, 5)


def mask(*values):
    pixels = np.zeros(SHAPE, np.uint8)
    pixels.flat[: len(values)] = values
    return pixels


def write(folder, data):
    path = folder / "a.png"
    path.write_bytes(data)
    return path


def write_palette(folder, indices, colors):
    """A palette PNG of given indices, its colours `{index: (r, g, b)}`."""
    table = np.zeros((256, 3), np.uint8)
    for index, color in colors.items():
        table[index] = color
    image = Image.fromarray(indices)
    image.putpalette(table.tobytes())
    image.save(folder / "a.png")
    return folder / "a.png"


@pytest.mark.parametrize("depth", [2, 4, 8])
@pytest.mark.parametrize("color_type", [0, 3])
def test_samples_are_read_as_they_stand_in_the_file(tmp_path, depth, color_type):
    samples = mask(0, 1, 2, 1)[..., None]
    colors = image_zoo.chunk(b"PLTE", bytes(range(12)))
    path = write(tmp_path, image_zoo.png(samples, depth, color_type, *[colors] * (color_type == 3)))
    np.testing.assert_array_equal(read_mask(path, RULES, *SHAPE), samples[..., 0])


@pytest.mark.parametrize("depth, color_type", [(1, 0), (1, 3), (8, 3)])
def test_black_and_white_is_asked_about(tmp_path, depth, color_type):
    colors = [image_zoo.chunk(b"PLTE", b"\0\0\0\xff\xff\xff")] * (color_type == 3)
    path = write(tmp_path, image_zoo.png(mask(0, 1)[..., None], depth, color_type, *colors))
    with pytest.raises(InputError, match=r"a\.png: the mask is black and white; .*--mask_values=1:NAME"):
        read_mask(path, RULES, *SHAPE)
    found = read_mask(path, MaskRules(IDS, parse_mask_values("1:dog", LABELS, "target")), *SHAPE)
    np.testing.assert_array_equal(found, mask(0, 2))
    nothing = write(tmp_path, image_zoo.png(mask()[..., None], depth, color_type, *colors))
    assert not read_mask(nothing, RULES, *SHAPE).any()


def test_0_and_255_are_asked_about(tmp_path):
    for values in ((0, 255), (255,) * 20):
        Image.fromarray(mask(*values)).save(tmp_path / "a.png")
        with pytest.raises(InputError, match=r"no values but 0 and 255.*--mask_values=255:NAME"):
            read_mask(tmp_path / "a.png", RULES, *SHAPE)
    path = tmp_path / "a.png"
    for text, expected in (("255:cat", 1), ("255:ignore", 255), ("255:background", 0)):
        rules = MaskRules(IDS, parse_mask_values(text, LABELS, "target"))
        assert (read_mask(path, rules, *SHAPE) == expected).all()
    path = write_palette(tmp_path, mask(0, 255), {255: (255, 255, 255)})
    with pytest.raises(InputError, match="no values but 0 and 255"):
        read_mask(path, RULES, *SHAPE)


def test_an_ignored_border_alone_is_vocs(tmp_path):
    save_indexed_png(tmp_path / "a.png", mask(0, 255, 255))
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", RULES, *SHAPE), mask(0, 255, 255))


def test_255_beside_an_id_is_the_border(tmp_path):
    Image.fromarray(mask(0, 255, 2)).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", RULES, *SHAPE), mask(0, 255, 2))


def test_a_renumbered_voc_palette_is_refused_or_read_by_colour(tmp_path):
    voc = palette()
    path = write_palette(tmp_path, mask(0, 1, 2, 2), {0: voc[0], 1: voc[2], 2: voc[255]})
    with pytest.raises(InputError, match=r"renumbered: index 1 has the colour of id 2; --mask_palette=color"):
        read_mask(path, RULES, *SHAPE)
    by_color = MaskRules(IDS, palette="color")
    np.testing.assert_array_equal(read_mask(path, by_color, *SHAPE), mask(0, 2, 255, 255))
    np.testing.assert_array_equal(read_mask(path, MaskRules(IDS, palette="index"), *SHAPE), mask(0, 1, 2, 2))
    # A tool that sorts its colours may give the background another index than 0.
    path = write_palette(tmp_path, mask(1, 1, 1), {0: voc[1], 1: voc[0]})
    with pytest.raises(InputError, match="renumbered: index 0 has the colour of id 1"):
        read_mask(path, RULES, *SHAPE)


def test_palettes_of_other_colours_are_indices(tmp_path):
    for colors in (
        {1: (255, 0, 0), 2: (0, 255, 0)},
        {1: (1, 1, 1), 2: (2, 2, 2)},
        # An unused entry says nothing.
        {1: palette()[1], 2: palette()[2], 3: palette()[1]},
    ):
        path = write_palette(tmp_path, mask(0, 1, 2), colors)
        np.testing.assert_array_equal(read_mask(path, RULES, *SHAPE), mask(0, 1, 2))


def test_rgb_in_vocs_colours(tmp_path):
    Image.fromarray(palette()[mask(0, 1, 2, 255)]).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"is a PNG of mode RGB.*--mask_palette=color"):
        read_mask(tmp_path / "a.png", RULES, *SHAPE)
    by_color = MaskRules(IDS, palette="color")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png", by_color, *SHAPE), mask(0, 1, 2, 255))
    colors = palette()[mask(0, 1)]
    colors[3, 4] = 1, 2, 3
    Image.fromarray(colors).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"has the colour \(1, 2, 3\), which VOC's palette does not have"):
        read_mask(tmp_path / "a.png", by_color, *SHAPE)


def test_values_without_a_meaning_are_refused(tmp_path):
    Image.fromarray(mask(0, 3, 9)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"has the values 3, 9; 0, 255 and the label ids"):
        read_mask(tmp_path / "a.png", RULES, *SHAPE)
    rules = MaskRules(IDS, parse_mask_values("9:cat", LABELS, "target"), hint="; HINT")
    with pytest.raises(InputError, match="has the value 3; allowed are 0, 9, 255; HINT"):
        read_mask(tmp_path / "a.png", rules, *SHAPE)


def test_mask_values():
    assert parse_mask_values("", LABELS, "target") is None
    found = parse_mask_values("1:puppy, 7:cat,0:ignore", LABELS, "target")
    assert found == {0: 255, 255: 255, 1: 2, 7: 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1", "'1' is no VALUE:NAME"),
        ("x:cat", "'x:cat' is no VALUE:NAME"),
        ("256:cat", "VALUE 0 to 255"),
        ("-1:cat", "VALUE 0 to 255"),
        ("1:cup", "'cup' is no label of the target domain; it has cat, dog"),
        ("1:", "'' is no label"),
        ("1:cat,1:dog", "gives the value 1 twice"),
        ("1:cat,", "'' is no VALUE:NAME"),
    ],
)
def test_malformed_mask_values(text, message):
    with pytest.raises(InputError, match=message):
        parse_mask_values(text, LABELS, "target")


def test_stored_masks_are_8_bit_grey_and_nothing_else():
    stored = encode_mask(mask(0, 1, 255))
    np.testing.assert_array_equal(check_stored_mask(stored, "its mask", IDS, *SHAPE), mask(0, 1, 255))
    samples = mask(0, 1)[..., None]
    colors = image_zoo.chunk(b"PLTE", bytes(range(12)))
    for data in (image_zoo.png(samples, 8, 3, colors), image_zoo.png(samples, 1, 0)):
        with pytest.raises(InputError, match="its mask: the mask is a PNG of mode"):
            check_stored_mask(data, "its mask", IDS, *SHAPE)
