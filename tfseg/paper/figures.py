"""Draws figures 2, 3, 5, 6 and 8 of the paper, from our own networks."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from tfseg import cli
from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID, LabelMap
from tfseg.errors import InputError
from tfseg.files import require_output_file, write_atomic
from tfseg.inference.crf import CrfParameters
from tfseg.inference.options import CrfOptions
from tfseg.inference.pictures import Cell, encode_png, fit, heat, mask_picture, sheet, stretch
from tfseg.inference.postprocessing import from_square
from tfseg.inference.preprocessing import ImageFit, to_square

if TYPE_CHECKING:
    import keras

    from tfseg.inference.segmenter import Segmentation, Segmenter
    from tfseg.paper.examples import Example

EXAMPLES = (
    "--figure=2 --model_dir=runs/demo/model --data_dir=runs/demo/records --output=figure2.png",
    "--figure=8 --model_dir=runs/demo/model --images=cat.jpg,dog.jpg --output=figure8.png",
)
DESCRIPTIONS = {
    "2": "The attention of equation (3) for each label of an image: each should lie on its own object.",
    "3": "Attention beside densified attention, equation (7): a few positions become the whole object.",
    "5": "Label maps beside input, ground truth and the attention over all labels: what the decoder makes of "
    "the attention.",
    "6": "Rows of the Gram matrix of the features, equation (10), each at the ringed pixel: where the image "
    "looks as it does there.",
    "8": "Our columns of the paper's comparison, with and without the CRF, beside input and ground truth.",
}
"""What each figure shows; the PNG file carries it."""
DPI = 300
"""Pixels an inch; what journals ask of photographs."""
TEXT_WIDTH = 6.9
"""Width of a page's text in inches, as in the two columns of a conference paper."""
_SIDE = 512  # Of a picture before it is laid out, pixels: heat and contours are fine there.
_PAGE = {"dpi": DPI, "width": TEXT_WIDTH, "cell": 1.7}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FigureOptions:
    """Which figure is drawn of which images; each field is a flag."""

    figure: Literal["2", "3", "5", "6", "8"] = cli.flag(
        "2: attention of each label; 3: attention beside densified attention; 5: input, ground truth, "
        "attention, BaselineNet, TransferNet, with CRF; 6: rows of the Gram matrix; 8: our two columns of "
        "the comparison."
    )
    model_dir: str = cli.flag("Model directory of tfseg.train.", exists="folder")
    output: str = cli.flag("PNG file to write, 300 dpi.")
    baseline_dir: str | None = cli.flag(
        "Model directory of BaselineNet, for figure 5.", default=None, exists="folder"
    )
    data_dir: str | None = cli.flag(
        "Directory of the records; none: all --images are files.", default=None, exists="folder"
    )
    split: str = cli.flag("Records in which --images are looked up.", default="target_val")
    images: tuple[str, ...] = cli.flag(
        "Ids of the split, or image files; without it, the first of each label.", default=(), separator=","
    )
    count: int = cli.flag("How many images of the split are taken without --images.", default=5, lower=1)
    labels: Literal["predicted", "ground_truth"] | None = cli.flag(
        "Which labels the network is asked for; without it, figures 5 and 8: predicted; others: "
        "ground_truth, files predicted.",
        default=None,
    )
    label: tuple[str, ...] = cli.flag(
        "Name or id of a label to ask for instead; may stand several times.", default=()
    )
    pixels: tuple[str, ...] = cli.flag(
        "Figure 6: X:Y of pixels, from 0, as in 40:60,80:20; without it, peaks of the attention.",
        default=(),
        separator=",",
    )
    crf: CrfOptions = cli.group(CrfOptions, crf="official")


@dataclasses.dataclass(frozen=True)
class Shown:
    """An image with what networks found in it.

    Attributes:
        example: The image.
        found: By TransferNet.
        baseline: By BaselineNet, or None.
        refined: TransferNet's label map after the CRF, uint8 `[H, W]`, or None.
    """

    example: "Example"
    found: "Segmentation"
    baseline: "Segmentation | None" = None
    refined: np.ndarray | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.figures", __doc__, FigureOptions, _run, argv, EXAMPLES)


def _run(options: FigureOptions) -> None:
    require_output_file(options.output, "--output=")
    pixels = _pixels(options.pixels)
    crf = options.crf.crf_parameters() if options.figure in "58" else None
    if not options.images and options.data_dir is None:
        raise InputError("no image given; say --images=FILE,... or --data_dir=DIR")
    with cli.working("loading TensorFlow"):
        from tfseg.inference.segmenter import Segmenter
    from tfseg.data.records import Split
    from tfseg.model_dir import load_model
    from tfseg.paper.examples import choose_pairs, find_examples, read_example

    split = Split.load(options.data_dir, options.split) if options.data_dir else None
    if options.images:
        examples = find_examples(split, options.images)
    else:
        examples = [read_example(split, index) for index, _ in choose_pairs(split, options.count)]
    with cli.working("loading the model"):
        segmenter, baseline = Segmenter.load(options.model_dir), None
        if options.baseline_dir and options.figure == "5":
            baseline = Segmenter.load(options.baseline_dir)
    with cli.working("drawing"):
        shown = [_show(options, example, segmenter, baseline, crf) for example in examples]
        if options.figure == "6":
            picture = gram_rows(shown, load_model(options.model_dir), pixels)
        else:
            draw = {"2": attention_per_label, "3": densified_attention, "5": qualitative, "8": our_columns}
            picture = draw[options.figure](shown, segmenter.label_map)
        write_atomic(Path(options.output), encode_png(picture, DPI, DESCRIPTIONS[options.figure]))
    height, width = picture.shape[:2]
    size = f"{width / DPI:.1f} x {height / DPI:.1f} inches"
    print(f"{options.output}: {width} x {height} pixels, {size} at {DPI} dpi")


def _show(
    options: FigureOptions,
    example: "Example",
    segmenter: "Segmenter",
    baseline: "Segmenter | None",
    crf: CrfParameters | None,
) -> Shown:
    """Segments an example for the labels that the flags name."""
    wanted = options.labels or ("predicted" if options.figure in "58" else "ground_truth")
    labels = options.label or (example.labels if wanted == "ground_truth" and example.labels else None)
    found = segmenter.segment(example.image, labels)
    if found.attention is None:
        raise InputError(
            f"{options.model_dir}: an export does not tell its attention; give a model directory"
        )
    return Shown(
        example,
        found,
        baseline.segment(example.image, labels) if baseline else None,
        segmenter.segment(example.image, found.labels, crf=crf).label_map if crf else None,
    )


def attention_per_label(shown: Sequence[Shown], label_map: LabelMap) -> np.ndarray:
    """Figure 2: the attention a^l of equation (3) for each label of an image, a row an image."""
    rows = []
    for one in shown:
        image = fit(one.example.image, _SIDE)
        maps = zip(one.found.labels, one.found.attention, strict=True)
        cells = [
            Cell(heat(image, attention, fit=one.found.image_fit), label_map.label(label).name)
            for label, attention in maps
        ]
        rows.append([Cell(image, one.example.name), *cells])
    return sheet(rows, **_PAGE)


def densified_attention(shown: Sequence[Shown], label_map: LabelMap) -> np.ndarray:
    """Figure 3: attention a^l beside densified attention s^l of equation (7), a row a label."""
    rows, names = [], []
    for one in shown:
        image, found = fit(one.example.image, _SIDE), one.found
        for label, *maps in zip(found.labels, found.attention, found.densified, strict=True):
            rows.append([Cell(image), *(Cell(heat(image, m, fit=found.image_fit)) for m in maps)])
            names.append(label_map.label(label).name)
    return sheet(rows, ["Input", "Attention", "Densified attention"], names, **_PAGE)


def qualitative(shown: Sequence[Shown], label_map: LabelMap, with_attention: bool = True) -> np.ndarray:
    """Figure 5: input, ground truth, attention over all labels, BaselineNet, TransferNet, with CRF.

    The columns of BaselineNet and of the CRF are left out where nothing was given for them.
    """
    with_baseline, with_crf = shown[0].baseline is not None, shown[0].refined is not None
    rows = []
    for one in shown:
        image = fit(one.example.image, _SIDE)
        unknown = np.full_like(image, 255)
        row = [Cell(image), Cell(unknown) if one.example.mask is None else _mask_cell(one.example.mask)]
        if with_attention:
            row.append(Cell(heat(image, aggregate(one.found.attention), fit=one.found.image_fit)))
        row += [_mask_cell(one.baseline.label_map)] if with_baseline else []
        row += [_mask_cell(one.found.label_map)]
        row += [_mask_cell(one.refined)] if with_crf else []
        rows.append(row)
    titles = ["Input", "Ground truth"] + ["Attention"] * with_attention + ["BaselineNet"] * with_baseline
    titles += ["TransferNet"] + ["TransferNet+CRF"] * with_crf
    return sheet(rows, titles, entries=_legend(shown, label_map), **_PAGE)


def our_columns(shown: Sequence[Shown], label_map: LabelMap) -> np.ndarray:
    """Figure 8 as far as it is ours: TransferNet and TransferNet+CRF beside input and ground truth.

    The paper's other columns are results of EM-Adapt and CCNN, which nobody published.
    """
    return qualitative([dataclasses.replace(one, baseline=None) for one in shown], label_map, False)


def gram_rows(
    shown: Sequence[Shown], model: "keras.Model", pixels: Sequence[tuple[int, int]] = ()
) -> np.ndarray:
    """Figure 6: rows of the Gram matrix G = A A^T at chosen pixels, equation (10).

    A row of G is the densified attention that a one-hot attention at that position gives: where the image
    looks as it does there.

    Args:
        shown: Images.
        model: The network whose encoder gives A.
        pixels: (x, y) in each image, from 0; none: where the attention of each label is highest.

    Raises:
        InputError: If a pixel is outside of an image.
    """
    rows = []
    for one in shown:
        chosen = list(pixels) or attention_peaks(one.found)
        _refuse_outside(chosen, one.example)
        image = fit(one.example.image, _SIDE)
        scale = _SIDE / max(one.example.image.shape[:2])
        row = [Cell(image, one.example.name)]
        maps = gram_maps(model, one.example.image, chosen, one.found.image_fit)
        for (x, y), gram in zip(chosen, maps, strict=True):
            # The middle of a pixel lies half a pixel from its corner.
            mark = ((x + 0.5) * scale, (y + 0.5) * scale)
            row.append(Cell(heat(image, gram, fit=one.found.image_fit), f"x {x}, y {y}", mark=mark))
        rows.append(row)
    return sheet(rows, **_PAGE)


def gram_maps(
    model: "keras.Model", image: np.ndarray, pixels: Sequence[tuple[int, int]], image_fit: ImageFit = "pad"
) -> list[np.ndarray]:
    """Returns the row of the Gram matrix at each pixel's position, float32 `[h, w]` over the square.

    Args:
        model: A segmentation network.
        image: uint8 `[H, W, 3]`.
        pixels: (x, y) in the image, from 0.
        image_fit: As in the model's `ModelConfig`.
    """
    square = to_square(image, model.inputs[0].shape[1], image_fit).astype(np.float32)
    height, width = image.shape[:2] if image_fit == "stretch" else [max(image.shape[:2])] * 2
    features = model.get_layer("encoder")(square[None], training=False)["features"]
    for layer in model.get_layer("attention").layers:
        if layer.name in ("conv5_3_scaled", "conv5_3_unit"):
            features = layer(features)
    a = np.asarray(features, np.float32)[0]
    maps = []
    for x, y in pixels:
        column, row = int((x + 0.5) * a.shape[1] / width), int((y + 0.5) * a.shape[0] / height)
        maps.append(a @ a[row, column])
    return maps


def attention_peaks(found: "Segmentation") -> list[tuple[int, int]]:
    """Returns the pixel (x, y) at which each label's attention is highest within the image."""
    height, width = found.image.shape[:2]
    peaks = []
    for attention in from_square(found.attention, height, width, fit=found.image_fit):
        y, x = np.unravel_index(attention.argmax(), attention.shape)
        peaks.append((int(x), int(y)))
    return peaks


def aggregate(attention: np.ndarray) -> np.ndarray:
    """Joins the attention of several labels, `[K, h, w]`: the maximum of all, each stretched to 0 to 1."""
    return stretch(attention).max(axis=0) if len(attention) else np.zeros((1, 1), np.float32)


def _mask_cell(label_map: np.ndarray) -> Cell:
    return Cell(mask_picture(label_map), flat=True)


def _pixels(words: Sequence[str]) -> list[tuple[int, int]]:
    matches = [re.fullmatch(r"(\d+):(\d+)", word.strip()) for word in words]
    if None in matches:
        raise InputError(f"--pixels={','.join(words)}: each must be X:Y, as in 40:60")
    return [(int(match[1]), int(match[2])) for match in matches]


def _refuse_outside(pixels: Sequence[tuple[int, int]], example: "Example") -> None:
    height, width = example.image.shape[:2]
    for x, y in pixels:
        if not (0 <= x < width and 0 <= y < height):
            raise InputError(
                f"pixel {x}:{y} is outside of the image {example.name}, which has {width} x {height} pixels"
            )


def _legend(shown: Sequence[Shown], label_map: LabelMap) -> list[tuple[int, str]]:
    ids: set[int] = set()
    for one in shown:
        maps = (one.example.mask, one.found.label_map, one.refined, one.baseline and one.baseline.label_map)
        ids.update(*(np.unique(m).tolist() for m in maps if m is not None))
    named = [(i, label_map.label(i).name) for i in sorted(ids - {BACKGROUND_ID, IGNORE_ID})]
    return named + ([(IGNORE_ID, "not evaluated")] if IGNORE_ID in ids else [])


if __name__ == "__main__":
    sys.exit(main())
