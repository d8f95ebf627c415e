"""Segments images: masks, overlays and attention maps as PNG files, and predictions.json about them."""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tfseg import cli, stopping
from tfseg.errors import InputError
from tfseg.files import write_atomic
from tfseg.folders import sole_writer
from tfseg.inference.options import CrfOptions, SegmenterOptions

if TYPE_CHECKING:
    from tfseg.inference.segmentation import Segmentation

# TensorFlow is imported by `_run`: the CRF's processes import this module too, and need none of it.

SOME_FAILED = 1
"""Exit status when images could not be read; all others were segmented."""

EXAMPLES = (
    "--model_dir=runs/demo/model --output_dir=predictions holiday/ cat.jpg",
    "--model_dir=runs/demo/export --output_dir=predictions --label=dog --label=cat '*.png'",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Which images are segmented, and what is written of them; each field is a flag.

    ```python
    >>> PredictionOptions(images=("cat.jpg",), model_dir="model", output_dir="out").overlays
    True

    ```
    """

    images: tuple[str, ...] = cli.words("IMAGE|FOLDER|GLOB")
    model_dir: str = cli.flag("Model directory of tfseg.train, or a SavedModel.", exists="folder")
    output_dir: str = cli.flag("Takes masks/, overlays/, attention/ and predictions.json.")
    label: tuple[str, ...] = cli.flag(
        "Name or id of a label to look for; may stand several times. Without it, labels are predicted.",
        default=(),
    )
    overlays: bool = cli.flag("Write overlays/NAME.png: image, tint, contour, legend.", default=True)
    attention: bool = cli.flag("Write attention/NAME.png: maps and mask of each label.", default=True)
    batch_size: int = cli.flag("Images, and (image, label) pairs, at once.", default=8, lower=1)
    segmenter: SegmenterOptions = cli.group(SegmenterOptions)
    crf: CrfOptions = cli.group(CrfOptions)

    def __post_init__(self) -> None:
        """Refuses a call without images."""
        if not self.images:
            raise InputError("no image given; name files, folders or globs after the flags")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; returns `SOME_FAILED` if an image could not be read."""
    return cli.run("tfseg.predict", __doc__, PredictionOptions, _run, argv, EXAMPLES)


def _run(options: PredictionOptions) -> int:
    with sole_writer(options.output_dir, "--output_dir=", ("masks", "overlays", "attention")):
        return _predict(options)


def _predict(options: PredictionOptions) -> int:
    crf = options.crf.crf_parameters()

    from tfseg.inference.files import named_files, output_names

    output_dir = Path(options.output_dir)
    files = list(named_files(options.images))
    names = output_names(files)
    with cli.working("loading the model"):
        from tfseg.inference.segmenter import Segmenter

        segmenter = Segmenter.load(options.model_dir, **dataclasses.asdict(options.segmenter))
    results = segmenter.segment_many(
        files,
        labels=options.label or None,
        crf=crf,
        batch_size=options.batch_size,
        crf_processes=options.crf.crf_processes,
        keep_errors=True,
    )
    report, failed = [], 0
    try:
        with cli.progress_bar("predict", "image", len(files)) as bar:
            for file, name, result in zip(files, names, results, strict=True):
                if isinstance(result, InputError):
                    failed += 1
                    bar.write(f"error: {result}", file=sys.stderr)
                    report.append({"file": str(file), "error": str(result)})
                else:
                    _write(options, output_dir, name, result)
                    report.append(_summary(file, name, result))
                bar.update()
    except stopping.Stopped as stopped:
        stopped.add_note(f"{len(report)} of {len(files)} images are described in predictions.json")
        raise
    finally:
        if report:  # Also after Ctrl-C: what was segmented stays described.
            text = json.dumps(report, indent=2) + "\n"
            write_atomic(output_dir / "predictions.json", text.encode())
    print(f"{len(files) - failed} of {len(files)} images segmented, {failed} could not be read")
    print(output_dir)
    return SOME_FAILED if failed else 0


def _write(options: PredictionOptions, output_dir: Path, name: str, result: "Segmentation") -> None:
    from tfseg.inference.pictures import encode_png

    result.save(output_dir / "masks" / f"{name}.png")
    if options.overlays:
        write_atomic(output_dir / "overlays" / f"{name}.png", encode_png(np.asarray(result.overlay())))
    if options.attention and result.attention is not None and result.labels:
        write_atomic(output_dir / "attention" / f"{name}.png", encode_png(np.asarray(result.plot())))


def _summary(file: Path, name: str, result: "Segmentation") -> dict:
    named = list(zip(result.labels, result.names, strict=True))
    pixels = {name: int((result.label_map == label).sum()) for label, name in named}
    height, width = result.label_map.shape
    summary = {"file": str(file), "name": name, "height": height, "width": width, "pixels": pixels}
    if result.label_probabilities is not None:
        scores = result.label_probabilities
        summary["label_probabilities"] = {name: round(float(scores[label - 1]), 4) for label, name in named}
    return summary


if __name__ == "__main__":
    sys.exit(main())
