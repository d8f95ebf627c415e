"""Evaluates a model on records; an interrupted evaluation goes on where it stopped."""

import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from tfseg import cli, stopping
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.evaluation.settings import Settings
from tfseg.files import write_atomic
from tfseg.folders import sole_writer
from tfseg.inference.options import CrfOptions, SegmenterOptions
from tfseg.model_dir import Export, ModelDir, find_model

# TensorFlow is imported by `_run`: the CRF's processes import this module too, and need none of it.

EXAMPLES = (
    "--model_dir=runs/demo/model --data_dir=runs/demo/records --labels=ground_truth",
    "--flagfile=tfseg:official/evaluate.cfg --model_dir=DIR --data_dir=DIR",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EvaluationOptions:
    """What is evaluated, and how; each field is a flag.

    ```python
    >>> EvaluationOptions(model_dir="model", data_dir="records").split
    'target_val'

    ```
    """

    model_dir: str = cli.flag("Model directory of tfseg.train, or a SavedModel.", exists="folder")
    data_dir: str = cli.flag("Directory of the records.", exists="folder")
    split: str = cli.flag(
        "Records to evaluate; they need masks, but for --method=labels.", default="target_val"
    )
    output_dir: str | None = cli.flag(
        "Takes metrics.json, progress and pictures; without it, MODEL_DIR/evaluation/SPLIT-LABELS-CRF, for "
        "the control SPLIT-LABELS-attention, for labels alone SPLIT-labels-STAGE, and behind that each flag "
        "that changes the result.",
        default=None,
    )
    label_domain: Literal["split", "target", "source", "all"] = cli.flag(
        "Which labels may be predicted; split: those of the split's domain.", default="split", advanced=True
    )
    settings: Settings = cli.group(Settings)
    segmenter: SegmenterOptions = cli.group(SegmenterOptions, skip=("label_domain",))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.evaluate", __doc__, EvaluationOptions, _run, argv, EXAMPLES)


def _run(options: EvaluationOptions) -> None:
    model = find_model(options.model_dir)
    output_dir = _output_dir(options, model)
    with sole_writer(output_dir, "--output_dir="):
        _evaluate(options, model, output_dir)


def _evaluate(options: EvaluationOptions, model: ModelDir | Export, output_dir: Path) -> None:
    split = Split.load(options.data_dir, options.split)
    of_masks = options.settings.method != "labels"
    if of_masks and not any(info.has_mask for info in split.infos):
        raise InputError(
            f"split {split.name} in {options.data_dir} has no masks, so that IoU cannot be measured; "
            "--method=labels measures the labels of its images"
        )
    fingerprint = _fingerprint(options, model)

    from tfseg.evaluation.table import format_metrics

    started = time.monotonic()
    with cli.progress_bar(f"evaluate {split.name}: loading", "image", smoothing=0.05) as bar:

        def show(done: int, total: int) -> None:
            if bar.total is None:
                bar.total, bar.initial, bar.n = total, done, done
                bar.set_description_str(f"evaluate {split.name}: ", refresh=False)
            bar.update(done - bar.n)

        try:
            metrics = _measure(options, model, split, output_dir, fingerprint, show)
        except (stopping.Stopped, OSError) as error:
            if of_masks and bar.total:
                error.add_note(f"{bar.n} of {bar.total} images are done; the same command goes on")
            raise
    metrics |= {
        "split": split.name,
        **_circumstances(options, model, output_dir),
        "weights": fingerprint,
        "seconds": round(time.monotonic() - started, 1),
    }
    write_atomic(output_dir / "metrics.json", (json.dumps(metrics, indent=2) + "\n").encode())
    print(format_metrics(metrics, split.label_map.name, split.domain))
    print(output_dir / "metrics.json")


def _measure(
    options: EvaluationOptions,
    model: ModelDir | Export,
    split: Split,
    output_dir: Path,
    fingerprint: dict[str, str],
    show: Callable[[int, int], None],
) -> dict[str, Any]:
    domain = split.domain if options.label_domain == "split" else options.label_domain
    wanted = dataclasses.replace(options.segmenter, label_domain=domain)
    if options.settings.method != "labels":
        from tfseg.evaluation.masks import evaluate_masks
        from tfseg.inference.segmenter import Segmenter

        segmenter = Segmenter.load(model, **dataclasses.asdict(wanted))
        return evaluate_masks(segmenter, split, options.settings, output_dir, fingerprint, show)

    from tfseg.evaluation.label_quality import evaluate_labels

    if not isinstance(model, ModelDir):
        raise InputError(f"{model.path}: --method=labels takes the model_dir, not an export")
    split.require_labels(model.label_map)
    return evaluate_labels(
        model.with_mean(wanted.bgr_mean).load(wanted.classifier_stage, wanted.checkpoint),
        split,
        split.label_map.allowed_ids(domain),
        wanted.label_threshold,
        options.settings.batch_size,
        model.config.image_fit,
        show,
        options.settings.on_bad_record,
    )


def _fingerprint(options: EvaluationOptions, model: ModelDir | Export) -> dict[str, str]:
    if not isinstance(model, ModelDir):
        return model.fingerprint()
    stages = () if options.settings.method == "labels" else ("joint",)
    return model.fingerprint((*stages, options.segmenter.classifier_stage), options.segmenter.checkpoint)


def _circumstances(options: EvaluationOptions, model: ModelDir | Export, output_dir: Path) -> dict[str, Any]:
    """Returns how it was measured, and what the network was trained on."""
    return {
        "labels": options.settings.labels,
        "method": options.settings.method,
        "crf": options.settings.crf.crf,
        "flags": cli.given_values(options) | {"output_dir": str(output_dir)},
        "command": cli.command_line("tfseg.evaluate", options),
        "training": model.training_record() if isinstance(model, ModelDir) else {},
        "versions": {
            "python": platform.python_version(),
            **{name: metadata.version(name) for name in ("tensorflow", "keras", "numpy", "pillow")},
        },
    }


def _output_dir(options: EvaluationOptions, model: ModelDir | Export) -> Path:
    """Returns --output_dir, or a folder whose name tells all flags that change the result."""
    if options.output_dir is not None:
        return Path(options.output_dir)
    if not isinstance(model, ModelDir):
        raise InputError(
            f"--model_dir={options.model_dir}: is no model directory of tfseg.train; to evaluate a "
            "SavedModel give --output_dir"
        )
    settings, stage = options.settings, options.segmenter.classifier_stage
    changed = cli.flag_lines(options.segmenter, only_changed=True)
    if settings.method == "labels":
        name = f"{options.split}-labels-{stage}"
        changed = [line for line in changed if not line.startswith("--classifier_stage=")]
    else:
        name = f"{options.split}-{settings.labels}-"
        name += settings.crf.crf if settings.method == "decoder" else settings.method
        crf = dataclasses.replace(settings.crf, crf="none", crf_processes=CrfOptions().crf_processes)
        changed += cli.flag_lines(crf, only_changed=True)
    if options.label_domain != "split":
        changed.append(f"--label_domain={options.label_domain}")
    return Path(options.model_dir) / "evaluation" / "-".join([name, *(c.removeprefix("--") for c in changed)])


if __name__ == "__main__":
    sys.exit(main())
