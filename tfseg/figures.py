"""Draws figures 2, 3, 5, 6 and 8 of the paper: python -m tfseg.figures --figure=5 --model_dir=DIR ..."""

import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from tfseg import cli, crf_flags
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.inference.crf import CrfParameters

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "figure",
    None,
    ["2", "3", "5", "6", "8"],
    "2: attention of each label; 3: attention beside densified attention; 5: input, ground truth, attention, "
    "BaselineNet, TransferNet, with CRF; 6: rows of the Gram matrix; 8: our two columns of the comparison.",
    required=True,
)
flags.DEFINE_string("model_dir", None, "Model directory of tfseg.train.", required=True)
flags.DEFINE_string("baseline_dir", None, "Model directory of BaselineNet, for figure 5.")
flags.DEFINE_string("data_dir", None, "Directory of the records; none: all --images are files.")
flags.DEFINE_string("split", "target_val", "Records in which --images are looked up.")
flags.DEFINE_list(
    "images", [], "Ids of the split, or image files, separated by commas [first of each label]."
)
flags.DEFINE_integer("count", 5, "How many images of the split are taken without --images.", lower_bound=1)
flags.DEFINE_enum(
    "labels",
    None,
    ["predicted", "ground_truth"],
    "Which labels the network is asked for [5, 8: predicted; others: ground_truth, files predicted].",
)
flags.DEFINE_multi_string("label", [], "Name or id of a label to ask for instead; may stand several times.")
flags.DEFINE_list(
    "pixels", [], "Figure 6: X:Y of pixels, from 0, as in 40:60,80:20 [peaks of the attention]."
)
flags.DEFINE_string("output", None, "PNG file to write, 300 dpi.", required=True)
crf_flags.define()
flags.adopt_module_key_flags(crf_flags)
FLAGS.set_default("crf", "official")


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv
    from tfseg.data.records import Split
    from tfseg.reporting import paper_figures, sheet
    from tfseg.reporting.examples import choose_pairs, find_examples
    from tfseg.segmenter import Segmenter
    from tfseg.training.checkpoints import load_model

    pixels = _pixels(FLAGS.pixels)
    crf = crf_flags.parameters(FLAGS) if FLAGS.figure in "58" else None
    split = Split.load(FLAGS.data_dir, FLAGS.split) if FLAGS.data_dir else None
    names = FLAGS.images
    if not names:
        if split is None:
            raise InputError("no image given; say --images=FILE,... or --data_dir=DIR")
        names = [split.infos[index].image_id for index, _ in choose_pairs(split, FLAGS.count)]
    examples = find_examples(split, names)
    segmenter = Segmenter.load(FLAGS.model_dir)
    baseline = Segmenter.load(FLAGS.baseline_dir) if FLAGS.baseline_dir and FLAGS.figure == "5" else None
    shown = [_show(example, segmenter, baseline, crf) for example in examples]
    label_map = segmenter.label_map
    if FLAGS.figure == "2":
        picture = paper_figures.attention_per_label(shown, label_map)
    elif FLAGS.figure == "3":
        picture = paper_figures.densified_attention(shown, label_map)
    elif FLAGS.figure == "5":
        picture = paper_figures.qualitative(shown, label_map)
    elif FLAGS.figure == "6":
        picture = paper_figures.gram_rows(shown, load_model(FLAGS.model_dir), pixels)
    else:
        picture = paper_figures.our_columns(shown, label_map)
    write_atomic(Path(FLAGS.output), sheet.encode(picture))
    height, width = picture.shape[:2]
    size = f"{width / sheet.DPI:.1f} x {height / sheet.DPI:.1f} inches"
    print(f"{FLAGS.output}: {width} x {height} pixels, {size} at {sheet.DPI} dpi")


def _show(example, segmenter, baseline, crf: CrfParameters | None):
    """Segments an example for the labels that the flags name."""
    from tfseg.reporting.paper_figures import Shown, refined_label_map

    wanted = FLAGS.labels or ("predicted" if FLAGS.figure in "58" else "ground_truth")
    labels = FLAGS.label or (example.labels if wanted == "ground_truth" and example.labels else None)
    found = segmenter.segment(example.image, labels)
    if found.attention is None:
        raise InputError(f"{FLAGS.model_dir}: an export does not tell its attention; give a model directory")
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
    cli.run(main)
