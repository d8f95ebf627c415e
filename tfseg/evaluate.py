"""Evaluates a model on records; an interrupted evaluation goes on where it stopped."""

import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tfseg import cli
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.inference.options import CrfOptions, SegmenterOptions

if TYPE_CHECKING:
    from tfseg.data.records import Split

# TensorFlow is imported by `_run`: the CRF's processes import this module too, and need none of it.

EXAMPLES = (
    "--model_dir=runs/demo/model --data_dir=runs/demo/records --labels=ground_truth",
    "--flagfile=configs/official/evaluate.cfg --model_dir=DIR --data_dir=DIR",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is evaluated, and how; each field is a flag."""

    segmenter: SegmenterOptions = cli.group()
    data_dir: str = cli.flag("Directory of the records.", exists="folder")
    split: str = cli.flag(
        "Records to evaluate; they need masks, but for --method=labels.", default="target_val"
    )
    labels: Literal["predicted", "ground_truth"] = cli.flag(
        "Whether the classifier names the labels of an image or its mask does.", default="predicted"
    )
    method: Literal["decoder", "attention", "labels"] = cli.flag(
        "The network's masks; or the control that thresholds its attention maps (the best of both maps "
        "and of thresholds 0.1 to 0.9 counts); or the classifier's labels alone (mAP, F1), which needs "
        "neither masks nor a segmentation network.",
        default="decoder",
    )
    output_dir: str | None = cli.flag(
        "Takes metrics.json, progress and pictures; default MODEL_DIR/evaluation/SPLIT-LABELS-CRF, for "
        "the control SPLIT-LABELS-attention, for labels alone SPLIT-labels-STAGE.",
        default=None,
    )
    save_comp6: bool = cli.flag(
        "Write label maps as results/VOC2012/Segmentation/comp6_val_cls/ID.png (val: from target_val).",
        default=False,
        advanced=True,
    )
    label_domain: Literal["split", "target", "source", "all"] = cli.flag(
        "Which labels may be predicted; split: those of the split's domain.", default="split", advanced=True
    )
    crf: CrfOptions = cli.group()


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.evaluate", __doc__, EvaluationOptions, _run, argv, EXAMPLES)


def _run(options: EvaluationOptions) -> None:
    from tqdm import tqdm

    from tfseg.data.records import Split
    from tfseg.evaluation.progress import model_fingerprint, training_record
    from tfseg.evaluation.table import format_metrics

    output_dir = _output_dir(options)
    split = Split.load(options.data_dir, options.split)
    stages = (
        [options.segmenter.classifier_stage]
        if options.method == "labels"
        else ["joint", options.segmenter.classifier_stage]
    )
    fingerprint = model_fingerprint(options.segmenter.model_dir, stages)
    measure = _measure_labels if options.method == "labels" else _measure_masks

    started = time.monotonic()
    with tqdm(desc=f"evaluate {split.name}", unit="image", smoothing=0.05) as bar:

        def show(done: int, total: int) -> None:
            if bar.total is None:
                bar.total, bar.initial, bar.n = total, done, done
            bar.update(done - bar.n)
            bar.refresh()

        metrics = measure(options, split, output_dir, fingerprint, show)
    metrics |= {
        "split": split.name,
        "labels": options.labels,
        "method": options.method,
        "crf": options.crf.crf,
        "flags": cli.given_values(options) | {"output_dir": str(output_dir)},
        "command": cli.command_line("tfseg.evaluate", options),
        "weights": fingerprint,
        "training": training_record(options.segmenter.model_dir),
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
    options: EvaluationOptions,
    split: "Split",
    output_dir: Path,
    fingerprint: dict[str, str],
    show: Callable[[int, int], None],
) -> dict[str, Any]:
    from tfseg.evaluation.run import Settings, evaluate

    settings = Settings(
        labels=options.labels,
        method=options.method,
        crf=options.crf.crf_parameters(),
        save_comp6=options.save_comp6,
        batch_size=options.segmenter.batch_size,
        crf_processes=options.crf.crf_processes,
    )
    segmenter = options.segmenter.load(_label_domain(options, split))
    return evaluate(segmenter, split, settings, output_dir, fingerprint, show)


def _measure_labels(
    options: EvaluationOptions,
    split: "Split",
    output_dir: Path,
    fingerprint: dict[str, str],
    show: Callable[[int, int], None],
) -> dict[str, Any]:
    del output_dir, fingerprint  # It is quick and keeps no progress.
    from tfseg.evaluation.labels import evaluate_labels
    from tfseg.evaluation.run import check_label_maps
    from tfseg.inference.labels import domain_ids
    from tfseg.training.checkpoints import read_model_dir

    directory = read_model_dir(options.segmenter.model_dir).with_mean(options.segmenter.bgr_mean)
    check_label_maps(directory.label_map, split)
    return evaluate_labels(
        directory.load(options.segmenter.classifier_stage),
        split,
        domain_ids(split.label_map, _label_domain(options, split)),
        options.segmenter.label_threshold,
        options.segmenter.batch_size,
        show,
    )


def _label_domain(options: EvaluationOptions, split: "Split") -> str:
    return split.domain if options.label_domain == "split" else options.label_domain


def _output_dir(options: EvaluationOptions) -> Path:
    if options.output_dir is not None:
        return Path(options.output_dir)
    if not (Path(options.segmenter.model_dir) / "model.json").is_file():
        raise InputError(
            f"--model_dir={options.segmenter.model_dir}: is no model directory of tfseg.train; to evaluate a "
            "SavedModel give --output_dir"
        )
    if options.method == "labels":
        return (
            Path(options.segmenter.model_dir)
            / "evaluation"
            / f"{options.split}-labels-{options.segmenter.classifier_stage}"
        )
    last = options.crf.crf if options.method == "decoder" else "attention"
    return Path(options.segmenter.model_dir) / "evaluation" / f"{options.split}-{options.labels}-{last}"


if __name__ == "__main__":
    sys.exit(main())
