import keras
import numpy as np
import pytest
from color_network import LABEL_MAP, ColorNetwork, draw, iou
from PIL import Image
from small_networks import TWO_BLOCKS
from split_files import write_split
from trained_model import write_model_dir

from tfseg.data.voc_colors import palette
from tfseg.inference.pictures import sheet
from tfseg.inference.preprocessing import to_square
from tfseg.inference.segmenter import Segmenter
from tfseg.models import build_transfernet
from tfseg.paper import figures
from tfseg.paper.examples import Example
from tfseg.paper.figures import DPI, TEXT_WIDTH, Shown, aggregate, attention_peaks, gram_maps

LABELS = (1, 2, 3)


def show(height, width, **changes):
    image, mask = draw(height, width)
    found = Segmenter(ColorNetwork(160, 20), LABEL_MAP).segment(image, LABELS)
    return Shown(Example("drawn", image, mask, LABELS), found, **changes)


def mask_cells(figure, height, width):
    """Finds the pictures in VOC's colours by their black and returns them as label maps."""
    codes = np.full(figure.shape[:2], 255, np.uint8)
    for label in (0, *LABELS):
        codes[(figure == palette()[label]).all(axis=-1)] = label
    # A row or column through a cell holds much black; text holds little.
    black = codes == 0
    rows = np.flatnonzero(black.sum(axis=1) > 200)
    columns = np.flatnonzero(black[rows].sum(axis=0) > 0.2 * len(rows))
    cells = []
    for part in np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1):
        if len(part) > 100:
            cell = codes[rows[0] : rows[-1] + 1, part[0] : part[-1] + 1]
            assert cell.shape[1] / cell.shape[0] == pytest.approx(width / height, rel=0.02)
            cells.append(cell)
    return cells


def check_cell(cell, truth, least):
    small = Image.fromarray(truth).resize(cell.shape[::-1], Image.Resampling.NEAREST)
    for label in LABELS:
        assert iou(np.array(small) == label, cell == label) > least


@pytest.mark.parametrize("size", [(90, 140), (140, 90), (300, 250)])
def test_masks_of_figure_5_lie_on_the_objects_in_the_colors_of_voc(size):
    one = show(*size)
    refined = np.where(one.example.mask == 1, one.example.mask, 0).astype(np.uint8)
    one = show(*size, baseline=one.found, refined=refined)
    figure = figures.qualitative([one], LABEL_MAP)
    truth, baseline, ours, crf = mask_cells(figure, *size)
    check_cell(truth, one.example.mask, 0.99)
    for cell in (baseline, ours):
        check_cell(cell, one.found.label_map, 0.99)
        check_cell(cell, one.example.mask, 0.9)
    assert set(np.unique(crf)) == {0, 1}
    assert figure.shape[1] <= TEXT_WIDTH * DPI
    # The legend shows each colour once more.
    below = figure[-60:].reshape(-1, 3).tolist()
    assert all(palette()[label].tolist() in below for label in LABELS)


def test_columns_without_content_are_left_out():
    size = (90, 140)
    assert len(mask_cells(figures.qualitative([show(*size)], LABEL_MAP), *size)) == 2
    assert len(mask_cells(figures.our_columns([show(*size)], LABEL_MAP), *size)) == 2
    nobody_knows = Shown(Example("file", *draw(*size)[:1], None, ()), show(*size).found)
    assert len(mask_cells(figures.our_columns([nobody_knows], LABEL_MAP), *size)) == 1


def cells_of(monkeypatch, draw_figure):
    """Returns rows and titles that a figure hands to the sheet."""
    seen = {}

    def keep(rows, *args, **kwargs):
        seen.update(rows=rows, args=args)
        return sheet(rows, *args, **kwargs)

    monkeypatch.setattr(figures, "sheet", keep)
    draw_figure()
    return seen["rows"], seen["args"]


def test_figures_2_and_3_show_each_labels_own_attention(monkeypatch):
    one = show(90, 140)
    rows, _ = cells_of(monkeypatch, lambda: figures.attention_per_label([one], LABEL_MAP))
    assert [cell.caption for cell in rows[0]] == ["drawn", "red", "green", "blue"]
    assert [hottest(cell.picture, one.example.mask) for cell in rows[0][1:]] == [1, 2, 3]
    rows, args = cells_of(monkeypatch, lambda: figures.densified_attention([one], LABEL_MAP))
    assert args == (["Input", "Attention", "Densified attention"], ["red", "green", "blue"])
    for label, row in zip(LABELS, rows, strict=True):
        assert [hottest(cell.picture, one.example.mask) for cell in row[1:]] == [label, label]


def test_figure_6_marks_the_pixel(monkeypatch):
    keras.utils.set_random_seed(0)
    model = build_transfernet(TWO_BLOCKS.replace(num_labels=4))
    (row,), _ = cells_of(monkeypatch, lambda: figures.gram_rows([show(90, 140)], model, [(0, 0), (139, 89)]))
    height, width = row[1].picture.shape[:2]
    assert row[1].mark == pytest.approx((width / 280, height / 180), rel=0.02)
    assert row[2].mark == pytest.approx((width - width / 280, height - height / 180), rel=0.02)
    assert [cell.caption for cell in row[1:]] == ["x 0, y 0", "x 139, y 89"]


def hottest(picture, truth):
    """Returns the label at the reddest place."""
    redness = picture[..., 0].astype(int) - picture[..., 2]
    y, x = np.unravel_index(redness.argmax(), redness.shape)
    return truth[y * truth.shape[0] // picture.shape[0], x * truth.shape[1] // picture.shape[1]]


def test_attention_over_labels_is_the_highest_of_all():
    attention = np.float32([[[0.5, 0.25]], [[0.1, 0.2]]])
    np.testing.assert_allclose(aggregate(attention), [[1.0, 1.0]])
    np.testing.assert_allclose(aggregate(np.float32([[[-2, -4, -1]], [[0, 0, 0]]])), [[2 / 3, 0, 1]])
    assert aggregate(np.zeros((0, 4, 4), np.float32)).shape == (1, 1)


def test_peaks_lie_on_the_objects():
    one = show(90, 140)
    for label, (x, y) in zip(LABELS, attention_peaks(one.found), strict=True):
        assert one.example.mask[y, x] == label


@pytest.mark.parametrize("size", [(60, 90), (90, 60)])
def test_a_gram_row_is_what_one_hot_attention_gives(size):
    keras.utils.set_random_seed(0)
    config = TWO_BLOCKS.replace(num_labels=4)
    model = build_transfernet(config)
    image, _ = draw(*size)
    pixels = [(0, 0), (size[1] - 1, size[0] - 1), (20, 35)]
    maps = gram_maps(model, image, pixels)
    square = to_square(image, config.image_size).astype(np.float32)
    features = model.get_layer("encoder").predict(square[None], verbose=0)["features"][0]
    a = (config.feature_scale * features).reshape(-1, features.shape[-1])
    side = features.shape[0]
    for (x, y), found in zip(pixels, maps, strict=True):
        one_hot = np.zeros((side, side))
        one_hot[y * side // max(size), x * side // max(size)] = 1
        z = a.T @ one_hot.ravel()  # equation (5)
        s = a @ z  # equation (7)
        np.testing.assert_allclose(found.ravel(), s, rtol=1e-4, atol=1e-6)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    folder = tmp_path_factory.mktemp("figures")
    samples = [(f"image_{n}", *draw(60 + 10 * n, 100 - 10 * n)) for n in range(3)]
    write_split(folder / "data", LABEL_MAP, samples)
    write_model_dir(folder / "model", LABEL_MAP)
    Image.fromarray(samples[0][1]).save(folder / "photograph.png")
    return folder


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        ("5", ["--count=2", "--crf=none", "--labels=ground_truth"]),
        ("6", ["--images=image_1,{folder}/photograph.png", "--pixels=3:4,50:10"]),
    ],
)
def test_command(finished, tmp_path, capsys, figure, words):
    output = tmp_path / "figure.png"
    words = [word.format(folder=finished) for word in words]
    model, data = f"--model_dir={finished / 'model'}", f"--data_dir={finished / 'data'}"
    assert figures.main([f"--figure={figure}", model, data, f"--output={output}", *words]) == 0
    with Image.open(output) as picture:
        assert f"{picture.width} x {picture.height} pixels" in capsys.readouterr().out
        assert picture.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
        assert picture.info["Description"] == figures.DESCRIPTIONS[figure]
        colors = {tuple(color) for color in np.array(picture).reshape(-1, 3).tolist()}
    if figure == "5":
        assert {tuple(palette()[label].tolist()) for label in LABELS} <= colors
    assert len(colors) > 1000


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--figure=6", "--pixels=3x4"], "--pixels=3x4: each must be X:Y"),
        (["--figure=2"], "no image given"),
        (
            ["--figure=6", "--pixels=5:99", "--images={folder}/photograph.png", "--label=red"],
            "pixel 5:99 is outside of the image photograph.png, which has 100 x 60 pixels",
        ),
        (["--figure=2", "--images=nowhere.png"], "image 'nowhere.png': is no file"),
        (["--figure=7"], "--figure"),
    ],
)
def test_wrong_words(finished, tmp_path, capsys, words, said):
    output = tmp_path / "figure.png"
    words = [word.format(folder=finished) for word in words]
    assert figures.main([f"--model_dir={finished / 'model'}", f"--output={output}", *words]) == 2
    assert said in capsys.readouterr().err
    assert not output.exists()
