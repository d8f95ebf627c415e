"""Writes a report of a run, one HTML file."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

from tfseg import cli
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.reporting import html, sections
from tfseg.reporting.examples import choose_pairs, read_example
from tfseg.reporting.export_check import ExportCheck, check_export
from tfseg.reporting.provenance import read_stages
from tfseg.reporting.results import read_evaluations
from tfseg.segmenter import Segmenter
from tfseg.training.checkpoints import ModelDir, read_model_dir

EXAMPLES = (
    "--model_dir=DIR --data_dir=DIR --evaluations=DIR --export_dir=DIR/1 --output=report.html",
    "--model_dir=DIR --data_dir=DIR --evaluations=DIR --export_dir=DIR/1 --output=FILE --figures=a.png",
)


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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.report", __doc__, ReportOptions, _run, argv, EXAMPLES)


def _run(options: ReportOptions) -> None:
    directory = read_model_dir(options.model_dir)
    evaluations = read_evaluations(Path(options.evaluations), directory.path, options.split)
    split = Split.load(options.data_dir, options.split)
    if split.label_map != directory.label_map:
        raise InputError(
            f"{options.data_dir}: split {split.name} has another label map than {directory.path}"
        )
    stages = read_stages(directory.path)
    check, examples = _look(directory, split, Path(options.export_dir), options.examples)
    seed = next((stage.flag("seed") for stage in reversed(stages) if stage.flag("seed")), "unknown")

    title = f"{directory.name} on {split.label_map.name}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="muted">Categories of which no mask was seen in training, split '
        f"{html.escape(split.name)}, seed {html.escape(seed)}.</p>",
        *sections.headline(evaluations, seed),
        *examples,
        *sections.paper_figures([Path(path) for path in options.figures]),
        *sections.iou_table(evaluations),
        *sections.curves(stages),
        *sections.export_section(*check),
        *sections.making(stages, evaluations, directory.path),
    ]
    write_atomic(options.output, html.page(title, body))
    for kind, metrics in evaluations.items():
        print(f"mIoU {100 * metrics['miou']:5.1f} %  {kind} (seed {seed})")
    result = "as the Keras model" if check[0].passed else "NOT as the Keras model"
    print(f"export: {result}, largest difference {check[0].difference:.1e}")
    print(options.output)


def _look(
    directory: ModelDir, split: Split, export_dir: Path, count: int
) -> tuple[tuple[ExportCheck, str], list[str]]:
    """Runs model and export on examples; returns the check with its label, and the examples' HTML."""
    pairs = choose_pairs(split, count)
    if not pairs:
        raise InputError(f"split {split.name} in {split.data_dir}: no record has a mask with a label")
    label_map, model = directory.label_map, directory.load("joint")
    classifier = directory.load_classifier()
    segmenter = Segmenter(
        model,
        classifier,
        label_map,
        decoder_input=directory.config.decoder_input,
        label_domain=split.domain,
    )
    rows = []
    for index, label in pairs:
        example = read_example(split, index)
        # A label may be in the record and yet in no pixel of the mask.
        found = segmenter.segment(example.image, dict.fromkeys((label, *example.labels)))
        predicted = ""
        if classifier is not None:
            predicted = sections.predicted_text(segmenter.segment(example.image), label_map)
        rows.append((example, found, label, predicted))
    label = pairs[0][1]
    check = check_export(export_dir, model, rows[0][0].image, label)
    return (check, label_map.label(label).name), sections.examples(rows, label_map)


if __name__ == "__main__":
    sys.exit(main())
