"""Writes a report of a run, one HTML file."""

import base64
import dataclasses
import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
from PIL import Image

from tfseg import cli
from tfseg.commands import called
from tfseg.errors import InputError
from tfseg.files import require_output_file, write_atomic
from tfseg.inference import pictures
from tfseg.paper.plan import Recipes

if TYPE_CHECKING:
    from tfseg.data.labels import LabelMap
    from tfseg.inference.segmenter import Segmentation, Segmenter
    from tfseg.paper.examples import Example
    from tfseg.paper.results import StageRun

EXAMPLES = (
    "--model_dir=DIR --data_dir=DIR --evaluations=DIR --export_dir=DIR/1 --output=report.html",
    "--model_dir=DIR --data_dir=DIR --evaluations=DIR --export_dir=DIR/1 --output=FILE --figures=a.png",
)
SECTIONS = {
    "results": "Results",
    "examples": "Examples",
    "figures": "Figures of the paper",
    "iou": "IoU by class, percent",
    "curves": "Training curves",
    "export": "Export",
    "making": "How it was made",
}
"""The headings, by their anchors."""
CARD_TITLES = {
    "ground_truth": "mIoU with ground-truth labels",
    "predicted": "mIoU with predicted labels",
    "attention": "mIoU of the thresholded attention",
}
TOLERANCE = 1e-5
"""Largest difference of probabilities that the same weights may show in an export."""
_SIDE = 256
_FIGURE_WIDTH = 1400
_Picture = tuple[str, str]  # Data URI and caption.


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportOptions:
    """Of which run a report is written; each field is a flag."""

    model_dir: str = cli.flag("Model directory of tfseg.train.", exists="folder")
    data_dir: str = cli.flag("Directory of the records.", exists="folder")
    evaluations: str = cli.flag(
        "Directory of ground_truth/, predicted/ and attention/, each an --output_dir of tfseg.evaluate."
    )
    export_dir: str = cli.flag("SavedModel to be checked against the model.")
    output: str = cli.flag("HTML file to write.")
    split: str = cli.flag("Records with masks, from which the examples are taken.", default="target_val")
    figures: tuple[str, ...] = cli.flag("PNG files of tfseg.figures to show.", default=(), separator=",")
    examples: int = cli.flag("Images to show.", default=8, lower=1)
    recipes: str | None = cli.flag(
        "Folder of the recipes, STAGE[-MODEL].cfg; the page has a notice where a training was shorter.",
        default=None,
        exists="folder",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.report", __doc__, ReportOptions, _run, argv, EXAMPLES)


def _run(options: ReportOptions) -> None:
    from tfseg.data.records import Split
    from tfseg.model_dir import read_model_dir
    from tfseg.paper.results import KINDS, per_class, read_evaluations, read_stages

    require_output_file(options.output, "--output=")
    directory = read_model_dir(options.model_dir)
    evaluations = read_evaluations(Path(options.evaluations), directory.path, options.split)
    split = Split.load(options.data_dir, options.split)
    split.require_labels(directory.label_map)
    figures = [show_figure(Path(path)) for path in options.figures]
    with cli.working("reading the logs of the run"):
        stages = read_stages(directory.path)
    with cli.working("segmenting the examples, by model and export"):
        examples, export = _segment_examples(directory, split, Path(options.export_dir), options.examples)
    seed = next((stage.flag("seed") for stage in reversed(stages) if stage.flag("seed")), "unknown")
    page = render(
        title=f"{directory.name} on {split.label_map.name}",
        split=split.name,
        seed=seed,
        notices=notices(stages, directory.name, options.recipes),
        sections={name: text for name, text in SECTIONS.items() if name != "figures" or figures},
        evaluations=evaluations,
        card_titles=CARD_TITLES,
        gain=100 * (evaluations["ground_truth"]["miou"] - evaluations["attention"]["miou"]),
        examples=examples,
        figures=figures,
        kinds=KINDS,
        per_class=per_class(evaluations),
        label_quality=evaluations["predicted"].get("label_quality"),
        stages=[show_stage(stage) for stage in stages],
        export=export,
        steps=wall_times(stages, evaluations),
        made_on=made_on(stages),
        model_json=(directory.path / "model.json").read_text(),
    )
    write_atomic(options.output, page)
    for kind, metrics in evaluations.items():
        print(f"mIoU {100 * metrics['miou']:5.1f} %  {kind} (seed {seed})")
    result = "as the Keras model" if export["passed"] else "NOT as the Keras model"
    print(f"export: {result}, largest difference {export['difference']:.1e}")
    print(options.output)


def notices(stages: Sequence["StageRun"], model: str, recipes: str | None) -> list[str]:
    """Says which stages were trained for fewer updates than their flags or recipes ask for."""
    found = [
        stage.notice(Recipes(Path(recipes)).steps(stage.name, model) if recipes else None) for stage in stages
    ]
    return [notice for notice in found if notice is not None]


def render(**values: Any) -> bytes:
    """Returns the page, UTF-8; every value is escaped where it is no number."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template("report.html.jinja").render(values).encode()


def _segment_examples(
    directory: Any, split: Any, export_dir: Path, count: int
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Runs model and export on examples; returns what is shown of each and of the export."""
    from tfseg.inference.segmenter import Segmenter
    from tfseg.paper.examples import choose_pairs, read_example

    pairs = choose_pairs(split, count)
    if not pairs:
        raise InputError(f"split {split.name} in {split.data_dir}: no record has a mask with a label")
    label_map, segmenter = directory.label_map, Segmenter.load(directory, label_domain=split.domain)
    shown = []
    for index, label in pairs:
        example = read_example(split, index)
        # A label may be in the record and yet in no pixel of the mask.
        found = segmenter.segment(example.image, tuple(dict.fromkeys((label, *example.labels))))
        predicted = segmenter.segment(example.image) if segmenter.can_predict_labels else None
        shown.append(
            {
                "labels": ", ".join(label_map.label(i).name for i in found.labels),
                "predicted": predicted_text(predicted, label_map) if predicted else "",
                "pictures": example_pictures(example, found, label, label_map),
            }
        )
    index, label = pairs[0]
    return shown, check_export(export_dir, segmenter, read_example(split, index).image, label)


def example_pictures(
    example: "Example", found: "Segmentation", label: int, label_map: "LabelMap"
) -> list[_Picture]:
    """Returns input, attention, densified attention, probability, label map and ground truth of a label.

    Args:
        example: With ground truth.
        found: By a network that tells its attention, for labels among which `label` is.
        label: The label whose maps are drawn.
        label_map: Names the labels.
    """
    k, name = found.labels.index(label), label_map.label(label).name
    image = pictures.fit(example.image, _SIDE)
    # Labels are seen better on an image whose own colours are muted.
    muted = np.rint(0.15 * image + 0.4 * image.mean(axis=-1, keepdims=True) + 0.45 * 255).astype(np.uint8)
    overlays = [
        pictures.overlay(muted, pictures.fit(labels, _SIDE, flat=True), alpha=0.65)
        for labels in (found.label_map, example.mask)
    ]
    return [
        (data_uri(image), f"input {example.name}"),
        (data_uri(pictures.heat(image, found.attention[k], fit=found.image_fit)), f"attention: {name}"),
        (
            data_uri(pictures.heat(image, found.densified[k], fit=found.image_fit)),
            f"densified attention: {name}",
        ),
        (_grey_uri(found.probabilities[k]), f"mask probability: {name}"),
        (data_uri(overlays[0]), "label map"),
        (data_uri(overlays[1]), "ground truth"),
    ]


def predicted_text(found: "Segmentation", label_map: "LabelMap") -> str:
    """Names the labels that a classifier chose, with their probabilities."""
    scores = found.label_probabilities
    said = (f"{label_map.label(i).name} {100 * scores[i - 1]:.0f} %" for i in found.labels)
    return "classifier: " + ", ".join(said)


def show_figure(path: Path) -> dict[str, str]:
    """Returns a picture of `tfseg.figures`, at the width of a screen, and the sentence that it carries.

    Raises:
        InputError: If the file is missing or no picture.
    """
    try:
        with Image.open(path, formats=["PNG", "JPEG"]) as opened:
            picture, description = opened.convert("RGB"), opened.info.get("Description", "")
    except OSError as error:
        raise InputError(f"{path}: not a picture that can be shown; tfseg.figures makes them") from error
    picture.thumbnail((_FIGURE_WIDTH, 10 * _FIGURE_WIDTH), Image.Resampling.LANCZOS)
    return {"name": path.stem, "description": description, "source": data_uri(np.asarray(picture))}


def show_stage(stage: "StageRun") -> dict[str, Any]:
    """Returns what is shown of a stage: its curves, flags and data."""
    from tfseg.paper.plots import draw_losses

    lines = []
    for domain, data in stage.run.get("data", {}).items():
        counts = f"{data['images']} images, {data['pairs']} pairs, {data['masks']} masks"
        lines.append(f"{domain}: {data['split']}, {counts}")
        lines += [f"  sha256 {digest}  {shard}" for shard, digest in data["sha256"].items()]
    curves = draw_losses(stage.losses).items() if stage.losses else ()
    return {
        "name": stage.name,
        "updates": stage.updates,
        "curves": [(data_uri(png), f"{what} of stage {stage.name}") for what, png in curves],
        "flags": stage.flags,
        "data": "\n".join(lines),
    }


def check_export(export_dir: Path, segmenter: "Segmenter", image: np.ndarray, label: int) -> dict[str, Any]:
    """Segments an image by an export and by the model that it was made from.

    Args:
        export_dir: A SavedModel, or the folder of versions, of which the newest is taken; it is loaded
            without any code of the model.
        segmenter: Of the model.
        image: uint8 `[H, W, 3]`.
        label: Id of the label to look for.

    Returns:
        `path` of the SavedModel, largest `difference` of probabilities, `tolerance`, whether it `passed`,
        and `pictures` of both.

    Raises:
        InputError: If there is no SavedModel, or it has other labels.
    """
    from tfseg.inference.segmenter import Segmenter
    from tfseg.model_dir import find_saved_model

    path = find_saved_model(export_dir)
    if path is None:
        raise InputError(f"{export_dir}: holds no SavedModel; {called('export.saved_model')} writes one")
    from_export = Segmenter.load(path)
    if from_export.label_map != segmenter.label_map:
        raise InputError(f"{path}: was exported with another label map than that of the model")
    exported, expected = (s.segment(image, label).probabilities[0] for s in (from_export, segmenter))
    difference, name = np.abs(exported - expected), segmenter.label_map.label(label).name
    return {
        "path": str(path),
        "passed": bool(difference.max() <= TOLERANCE),
        "difference": float(difference.max()),
        "tolerance": TOLERANCE,
        "pictures": [
            (data_uri(pictures.fit(image, _SIDE)), "input"),
            (_grey_uri(exported), f"export: {name}"),
            (_grey_uri(expected), f"Keras model: {name}"),
            (_grey_uri(difference / TOLERANCE), f"difference, white is {TOLERANCE:.0e}"),
        ],
    }


def wall_times(stages: Sequence["StageRun"], evaluations: dict[str, dict[str, Any]]) -> list[list[str]]:
    """Returns (step, updates, seed, wall time) of all stages and evaluations, and their sum as the last."""
    from tfseg.paper.results import KINDS

    seconds = [stage.seconds for stage in stages] + [m.get("seconds") for m in evaluations.values()]
    rows = [[f"train {s.name}", str(s.updates or "-"), s.flag("seed") or "-"] for s in stages]
    rows += [[f"evaluate: {KINDS[kind]}", "-", "-"] for kind in evaluations]
    total = None if None in seconds else sum(seconds)
    return [
        [*row, cli.format_seconds(time)]
        for row, time in zip([*rows, ["in all", "", ""]], [*seconds, total], strict=True)
    ]


def made_on(stages: Sequence["StageRun"]) -> str:
    """Names versions, devices and the number of parameters of the last stage."""
    run = stages[-1].run if stages else {}
    versions = [f"{name} {run[name]}" for name in ("python", "tensorflow", "keras", "numpy") if name in run]
    devices = ", ".join(run.get("devices", []))
    return f"{', '.join(versions) or 'versions unknown'}; {devices}; {run.get('parameters', 0):,} parameters."


def data_uri(picture: np.ndarray | bytes) -> str:
    """Returns a picture, uint8 `[H, W, 3]` or the bytes of a PNG file, as an address that holds it."""
    if isinstance(picture, bytes):
        return f"data:image/png;base64,{base64.b64encode(picture).decode()}"
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "JPEG", quality=88, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(encoded.getvalue()).decode()}"


def _grey_uri(values: np.ndarray) -> str:
    return data_uri(pictures.fit(pictures.grey(values), _SIDE))


if __name__ == "__main__":
    sys.exit(main())
