"""Draws figures 2, 3, 5, 6 and 8 of the paper."""

import dataclasses
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfseg import cli
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.inference.crf import CrfParameters
from tfseg.inference.options import CrfOptions

EXAMPLES = (
    "--figure=2 --model_dir=runs/demo/model --data_dir=runs/demo/records --output=figure2.png",
    "--figure=8 --model_dir=runs/demo/model --images=cat.jpg,dog.jpg --output=figure8.png",
)


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
    crf: CrfOptions = cli.group(crf="official")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.figures", __doc__, FigureOptions, _run, argv, EXAMPLES)


def _run(options: FigureOptions) -> None:
    from tfseg.data.records import Split
    from tfseg.reporting import paper_figures, sheet
    from tfseg.reporting.examples import choose_pairs, find_examples
    from tfseg.segmenter import Segmenter
    from tfseg.training.checkpoints import load_model

    pixels = _pixels(options.pixels)
    crf = options.crf.crf_parameters() if options.figure in "58" else None
    split = Split.load(options.data_dir, options.split) if options.data_dir else None
    names = options.images
    if not names:
        if split is None:
            raise InputError("no image given; say --images=FILE,... or --data_dir=DIR")
        names = [split.infos[index].image_id for index, _ in choose_pairs(split, options.count)]
    examples = find_examples(split, names)
    segmenter = Segmenter.load(options.model_dir)
    baseline = (
        Segmenter.load(options.baseline_dir) if options.baseline_dir and options.figure == "5" else None
    )
    shown = [_show(options, example, segmenter, baseline, crf) for example in examples]
    label_map = segmenter.label_map
    if options.figure == "2":
        picture = paper_figures.attention_per_label(shown, label_map)
    elif options.figure == "3":
        picture = paper_figures.densified_attention(shown, label_map)
    elif options.figure == "5":
        picture = paper_figures.qualitative(shown, label_map)
    elif options.figure == "6":
        picture = paper_figures.gram_rows(shown, load_model(options.model_dir), pixels)
    else:
        picture = paper_figures.our_columns(shown, label_map)
    write_atomic(Path(options.output), sheet.encode(picture))
    height, width = picture.shape[:2]
    size = f"{width / sheet.DPI:.1f} x {height / sheet.DPI:.1f} inches"
    print(f"{options.output}: {width} x {height} pixels, {size} at {sheet.DPI} dpi")


def _show(options: FigureOptions, example, segmenter, baseline, crf: CrfParameters | None):
    """Segments an example for the labels that the flags name."""
    from tfseg.reporting.paper_figures import Shown, refined_label_map

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
        refined_label_map(found, crf) if crf else None,
    )


def _pixels(words: Sequence[str]) -> list[tuple[int, int]]:
    matches = [re.fullmatch(r"(\d+):(\d+)", word.strip()) for word in words]
    if None in matches:
        raise InputError(f"--pixels={','.join(words)}: each must be X:Y, as in 40:60")
    return [(int(match[1]), int(match[2])) for match in matches]


if __name__ == "__main__":
    sys.exit(main())
