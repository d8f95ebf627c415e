"""Writes a report of a run, one HTML file: python -m tfseg.report --model_dir=DIR --output=FILE.html."""

from collections.abc import Sequence
from pathlib import Path

from absl import flags

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

FLAGS = flags.FLAGS
flags.DEFINE_string("model_dir", None, "Model directory of tfseg.train.", required=True)
flags.DEFINE_string("data_dir", None, "Directory of the records.", required=True)
flags.DEFINE_string("split", "target_val", "Records with masks, from which the examples are taken.")
flags.DEFINE_string(
    "evaluations",
    None,
    "Directory of ground_truth/, predicted/ and attention/, each an --output_dir of tfseg.evaluate.",
    required=True,
)
flags.DEFINE_string("export_dir", None, "SavedModel to be checked against the model.", required=True)
flags.DEFINE_list("figures", [], "PNG files of tfseg.figures to show, separated by commas.")
flags.DEFINE_string("output", None, "HTML file to write.", required=True)
flags.DEFINE_integer("examples", 8, "Images to show.", lower_bound=1)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv
    directory = read_model_dir(FLAGS.model_dir)
    evaluations = read_evaluations(Path(FLAGS.evaluations), directory.path, FLAGS.split)
    split = Split.load(FLAGS.data_dir, FLAGS.split)
    if split.label_map != directory.label_map:
        raise InputError(f"{FLAGS.data_dir}: split {split.name} has another label map than {directory.path}")
    stages = read_stages(directory.path)
    check, examples = _look(directory, split, Path(FLAGS.export_dir), FLAGS.examples)
    seed = next((stage.flag("seed") for stage in reversed(stages) if stage.flag("seed")), "unknown")

    title = f"{directory.name} on {split.label_map.name}"
    body = [
        f"<h1>{html.escape(title)}</h1>",
        f'<p class="muted">Categories of which no mask was seen in training, split '
        f"{html.escape(split.name)}, seed {html.escape(seed)}.</p>",
        *sections.headline(evaluations, seed),
        *examples,
        *sections.paper_figures([Path(path) for path in FLAGS.figures]),
        *sections.iou_table(evaluations),
        *sections.curves(stages),
        *sections.export_section(*check),
        *sections.making(stages, evaluations, directory.path),
    ]
    write_atomic(FLAGS.output, html.page(title, body))
    for kind, metrics in evaluations.items():
        print(f"mIoU {100 * metrics['miou']:5.1f} %  {kind} (seed {seed})")
    result = "as the Keras model" if check[0].passed else "NOT as the Keras model"
    print(f"export: {result}, largest difference {check[0].difference:.1e}")
    print(FLAGS.output)


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
    cli.run(main)
