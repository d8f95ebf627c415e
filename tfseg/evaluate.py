"""Evaluates a model on records: python -m tfseg.evaluate --model_dir=DIR --data_dir=DIR."""

import json
import platform
import shlex
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from tfseg import cli, crf_flags, segmenter_flags
from tfseg.errors import InputError
from tfseg.files import write_atomic

if TYPE_CHECKING:
    from tfseg.data.records import Split

# TensorFlow is imported in main: the CRF's processes import this module too, and need none of it.

FLAGS = flags.FLAGS
flags.DEFINE_string("data_dir", None, "Directory of the records.", required=True)
flags.DEFINE_string("split", "target_val", "Records to evaluate; they need masks, but for --method=labels.")
flags.DEFINE_enum(
    "labels",
    "predicted",
    ["predicted", "ground_truth"],
    "Whether the classifier names the labels of an image or its mask does.",
)
flags.DEFINE_enum(
    "method",
    "decoder",
    ["decoder", "attention", "labels"],
    "The network's masks; or the control that thresholds its attention maps (the best of both maps "
    "and of thresholds 0.1 to 0.9 counts); or the classifier's labels alone (mAP, F1), which needs "
    "neither masks nor a segmentation network.",
)
flags.DEFINE_string(
    "output_dir",
    None,
    "Takes metrics.json, progress and pictures; default MODEL_DIR/evaluation/SPLIT-LABELS-CRF, for "
    "the control SPLIT-LABELS-attention, for labels alone SPLIT-labels-STAGE.",
)
flags.DEFINE_boolean(
    "save_comp6",
    False,
    "Write label maps as results/VOC2012/Segmentation/comp6_val_cls/ID.png (val: from target_val).",
)
flags.DEFINE_enum(
    "label_domain",
    "split",
    ["split", "target", "source", "all"],
    "Which labels may be predicted; split: those of the split's domain.",
)
segmenter_flags.define()
flags.adopt_module_key_flags(segmenter_flags)
crf_flags.define()
flags.adopt_module_key_flags(crf_flags)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv
    from tqdm import tqdm

    from tfseg.data.records import Split
    from tfseg.evaluation.progress import model_fingerprint, training_record
    from tfseg.evaluation.table import format_metrics

    output_dir = _output_dir()
    split = Split.load(FLAGS.data_dir, FLAGS.split)
    stages = [FLAGS.classifier_stage] if FLAGS.method == "labels" else ["joint", FLAGS.classifier_stage]
    fingerprint = model_fingerprint(FLAGS.model_dir, stages)
    measure = _measure_labels if FLAGS.method == "labels" else _measure_masks

    own = FLAGS.get_key_flags_for_module(sys.modules[__name__])
    started = time.monotonic()
    with tqdm(desc=f"evaluate {split.name}", unit="image", smoothing=0.05) as bar:

        def show(done: int, total: int) -> None:
            if bar.total is None:
                bar.total, bar.initial, bar.n = total, done, done
            bar.update(done - bar.n)
            bar.refresh()

        metrics = measure(split, output_dir, fingerprint, show)
    metrics |= {
        "split": split.name,
        "labels": FLAGS.labels,
        "method": FLAGS.method,
        "crf": FLAGS.crf,
        "flags": {flag.name: flag.value for flag in own} | {"output_dir": str(output_dir)},
        "command": shlex.join(["python", "-m", "tfseg.evaluate", *sys.argv[1:]]),
        "weights": fingerprint,
        "training": training_record(FLAGS.model_dir),
        "seconds": round(time.monotonic() - started, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("tensorflow", "keras", "numpy", "pillow")},
        },
    }
    write_atomic(output_dir / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    print(format_metrics(metrics, split.label_map.name, split.domain))
    print(output_dir / "metrics.json")


def _measure_masks(
    split: "Split", output_dir: Path, fingerprint: dict[str, str], show: Callable[[int, int], None]
) -> dict[str, Any]:
    from tfseg.evaluation.run import Settings, evaluate

    settings = Settings(
        labels=FLAGS.labels,
        method=FLAGS.method,
        crf=crf_flags.parameters(FLAGS),
        save_comp6=FLAGS.save_comp6,
        batch_size=FLAGS.batch_size,
        crf_processes=FLAGS.crf_processes,
    )
    segmenter = segmenter_flags.load(FLAGS, _label_domain(split))
    return evaluate(segmenter, split, settings, output_dir, fingerprint, show)


def _measure_labels(
    split: "Split", output_dir: Path, fingerprint: dict[str, str], show: Callable[[int, int], None]
) -> dict[str, Any]:
    del output_dir, fingerprint  # It is quick and keeps no progress.
    from tfseg.evaluation.labels import evaluate_labels
    from tfseg.evaluation.run import check_label_maps
    from tfseg.inference.labels import domain_ids
    from tfseg.training.checkpoints import read_model_dir

    directory = read_model_dir(FLAGS.model_dir).with_mean(FLAGS.bgr_mean)
    check_label_maps(directory.label_map, split)
    return evaluate_labels(
        directory.load(FLAGS.classifier_stage),
        split,
        domain_ids(split.label_map, _label_domain(split)),
        FLAGS.label_threshold,
        FLAGS.batch_size,
        show,
    )


def _label_domain(split: "Split") -> str:
    return split.domain if FLAGS.label_domain == "split" else FLAGS.label_domain


def _output_dir() -> Path:
    if FLAGS.output_dir is not None:
        return Path(FLAGS.output_dir)
    if not (Path(FLAGS.model_dir) / "model.json").is_file():
        raise InputError(
            f"--model_dir={FLAGS.model_dir}: is no model directory of tfseg.train; to evaluate a "
            "SavedModel give --output_dir"
        )
    if FLAGS.method == "labels":
        return Path(FLAGS.model_dir) / "evaluation" / f"{FLAGS.split}-labels-{FLAGS.classifier_stage}"
    last = FLAGS.crf if FLAGS.method == "decoder" else "attention"
    return Path(FLAGS.model_dir) / "evaluation" / f"{FLAGS.split}-{FLAGS.labels}-{last}"


if __name__ == "__main__":
    cli.run(main)
