import subprocess
import sys

import keras
import numpy as np
import pytest
from color_network import LABEL_MAP, ColorNetwork, draw, iou
from PIL import Image
from small_networks import TWO_BLOCKS
from split_files import write_split
from trained_model import write_model_dir

from tfseg.data.voc_colors import palette
from tfseg.inference.geometry import to_square
from tfseg.models import build_transfernet
from tfseg.reporting import paper_figures, sheet
from tfseg.reporting.examples import Example
from tfseg.reporting.paper_figures import Shown, aggregate, attention_peaks, gram_maps
from tfseg.reporting.sheet import DPI, TEXT_WIDTH, Cell
from tfseg.segmenter import Segmenter

LABELS = (1, 2, 3)


def show(height, width, **changes):
    image, mask = draw(height, width)
    found = Segmenter(ColorNetwork(160, 20), None, LABEL_MAP).segment(image, LABELS)
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
    refined = np.where(one.example.truth == 1, one.example.truth, 0).astype(np.uint8)
    one = show(*size, baseline=one.found, refined=refined)
    figure = paper_figures.qualitative([one], LABEL_MAP)
    truth, baseline, ours, crf = mask_cells(figure, *size)
    check_cell(truth, one.example.truth, 0.99)
    for cell in (baseline, ours):
        check_cell(cell, one.found.label_map, 0.99)
        check_cell(cell, one.example.truth, 0.9)
    assert set(np.unique(crf)) == {0, 1}
    assert figure.shape[1] <= TEXT_WIDTH * DPI
    # The legend shows each colour once more.
    below = figure[-60:].reshape(-1, 3).tolist()
    assert all(palette()[label].tolist() in below for label in LABELS)


def test_columns_without_content_are_left_out():
    size = (90, 140)
    assert len(mask_cells(paper_figures.qualitative([show(*size)], LABEL_MAP), *size)) == 2
    assert len(mask_cells(paper_figures.our_columns([show(*size)], LABEL_MAP), *size)) == 2
    nobody_knows = Shown(Example("file", *draw(*size)[:1], None, ()), show(*size).found)
    assert len(mask_cells(paper_figures.our_columns([nobody_knows], LABEL_MAP), *size)) == 1


def cells_of(monkeypatch, draw_figure):
    """Returns rows and titles that a figure hands to the sheet."""
    seen = {}

    def keep(rows, *args, **kwargs):
        seen.update(rows=rows, args=args)
        return sheet.sheet(rows, *args, **kwargs)

    monkeypatch.setattr(paper_figures, "sheet", keep)
    draw_figure()
    return seen["rows"], seen["args"]


def test_figures_2_and_3_show_each_labels_own_attention(monkeypatch):
    one = show(90, 140)
    rows, _ = cells_of(monkeypatch, lambda: paper_figures.attention_per_label([one], LABEL_MAP))
    assert [cell.caption for cell in rows[0]] == ["drawn", "red", "green", "blue"]
    hot = [hottest(cell.draw(280), one.example.truth) for cell in rows[0][1:]]
    assert hot == [1, 2, 3]
    rows, args = cells_of(monkeypatch, lambda: paper_figures.densified_attention([one], LABEL_MAP))
    assert args == (["Input", "Attention", "Densified attention"], ["red", "green", "blue"])
    for label, row in zip(LABELS, rows, strict=True):
        assert [hottest(cell.draw(280), one.example.truth) for cell in row[1:]] == [label, label]


def hottest(picture, truth):
    """Returns the label at the reddest place."""
    redness = picture[..., 0].astype(int) - picture[..., 2]
    y, x = np.unravel_index(redness.argmax(), redness.shape)
    return truth[y * truth.shape[0] // picture.shape[0], x * truth.shape[1] // picture.shape[1]]


def test_attention_over_labels_is_the_highest_of_all():
    attention = np.float32([[[0.5, 0.25]], [[0.1, 0.2]]])
    np.testing.assert_allclose(aggregate(attention), [[1.0, 1.0]])
    assert aggregate(np.zeros((0, 4, 4), np.float32)).shape == (1, 1)


def test_peaks_lie_on_the_objects():
    one = show(90, 140)
    for label, (x, y) in zip(LABELS, attention_peaks(one.found), strict=True):
        assert one.example.truth[y, x] == label


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


def color(value):
    return np.uint8([value, 255 - value, 0])  # text is grey


def test_sheet_places_cells_and_keeps_to_the_page():
    def plain(value, height, width):
        return Cell(lambda side: np.tile(color(value), (side * height // 100, side * width // 100, 1)), "a")

    rows = [[plain(60, 100, 50), plain(90, 100, 100)], [plain(120, 50, 100)]]
    drawn = sheet.sheet(rows, ["one", "two"], ["first", "second"], [(1, "red")] * 30)
    assert drawn.shape[1] <= TEXT_WIDTH * DPI
    boxes = {}
    for value in (60, 90, 120):
        there = np.argwhere((drawn == color(value)).all(axis=-1))
        boxes[value] = *there.min(axis=0), *there.max(axis=0)
    side = round(1.7 * DPI)
    assert boxes[90][2] - boxes[90][0] + 1 == side
    assert boxes[60][3] - boxes[60][1] + 1 == side // 2
    assert boxes[60][3] < boxes[90][1]
    assert boxes[120][0] > boxes[60][2]
    assert (boxes[60][1] + boxes[60][3]) / 2 == pytest.approx((boxes[120][1] + boxes[120][3]) / 2, abs=2)


def test_encoded_figure_knows_its_size():
    import io

    picture = Image.open(io.BytesIO(sheet.encode(np.zeros((300, 600, 3), np.uint8))))
    assert picture.info["dpi"] == pytest.approx((300, 300), abs=0.1)


def command(*words):
    words = [sys.executable, "-m", "tfseg.figures", *map(str, words)]
    return subprocess.run(words, capture_output=True, text=True)


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
def test_command(finished, tmp_path, figure, words):
    output = tmp_path / "figure.png"
    words = [word.format(folder=finished) for word in words]
    model, data = f"--model_dir={finished / 'model'}", f"--data_dir={finished / 'data'}"
    result = command(f"--figure={figure}", model, data, f"--output={output}", *words)
    assert result.returncode == 0, result.stderr
    with Image.open(output) as picture:
        assert f"{picture.width} x {picture.height} pixels" in result.stdout
        assert picture.info["dpi"] == pytest.approx((DPI, DPI), abs=0.1)
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
def test_wrong_words(finished, tmp_path, words, said):
    output = tmp_path / "figure.png"
    words = [word.format(folder=finished) for word in words]
    result = command(f"--model_dir={finished / 'model'}", f"--output={output}", *words)
    assert result.returncode == 2
    assert said in result.stderr
    assert not output.exists()
