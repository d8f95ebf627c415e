"""Writes a SavedModel of a model directory and checks it against the Keras model."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from tfseg import cli
from tfseg.files import require_output_folder
from tfseg.inference.postprocessing import BACKGROUND_FACTOR, THRESHOLD

EXAMPLES = (
    "--model_dir=runs/demo/model --output_dir=runs/demo/export",
    "--model_dir=runs/demo/model --output_dir=runs/demo/export --version=7 --weights_dtype=float16",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Which model is exported to where; each field is a flag."""

    model_dir: str = cli.flag("Model directory of tfseg.train.", exists="folder")
    output_dir: str = cli.flag("Directory of the versions, one folder each.")
    checkpoint: int | None = cli.flag(
        "Exports the weights after this update instead of the newest, where --keep_checkpoints kept them.",
        default=None,
    )
    version: int = cli.flag("Number of the version; 0: the next one.", default=0, lower=0)
    weights_dtype: Literal["float32", "float16"] = cli.flag(
        "How weights are stored; float16 halves the size, the graph computes in float32.", default="float32"
    )
    label_domain: Literal["target", "source", "all"] = cli.flag(
        "Which labels the signature segment may predict.", default="target"
    )
    label_threshold: float = cli.flag(
        "Probability from which a label is predicted, 0 to 1.", default=THRESHOLD, lower=0.0, upper=1.0
    )
    background_factor: float = cli.flag(
        "Factor on the background's probability; 1 changes nothing.", default=BACKGROUND_FACTOR, lower=1e-6
    )
    max_pixels: int = cli.flag(
        "Larger images are refused before they are decoded.", default=25_000_000, lower=1, advanced=True
    )
    image_dtype: Literal["float32", "uint8"] = cli.flag(
        "Type of `image` in serving_default and classify; clients of older exports send float32.",
        default="float32",
        advanced=True,
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("export.saved_model", __doc__, ExportOptions, _run, argv, EXAMPLES)


def _run(options: ExportOptions) -> None:
    """Exports the weights and holds the reloaded export to the Keras model."""
    from tfseg.model_dir import read_model_dir

    directory = read_model_dir(options.model_dir)
    require_output_folder(options.output_dir, "--output_dir=")
    with cli.working("loading the model"):
        from .publish import export_model, next_version
        from .signatures import Options

        model = directory.load("joint", options.checkpoint)
        classifier = directory.load_classifier()
    output_dir = Path(options.output_dir)
    version_dir = output_dir / str(options.version or next_version(output_dir))
    decided = Options(
        label_domain=options.label_domain,
        label_threshold=options.label_threshold,
        background_factor=options.background_factor,
        max_pixels=options.max_pixels,
        image_dtype=options.image_dtype,
    )
    with cli.working("writing the export and holding it to the model"):
        found = export_model(directory, model, classifier, version_dir, decided, options.weights_dtype)
    size = sum(path.stat().st_size for path in version_dir.rglob("*") if path.is_file())
    print(
        f"{version_dir}: written, {size / 1e6:.1f} MB; reloaded, it differs from the Keras model by at most "
        f"{found.difference:.1e}; masks agree in {100 * found.mask_agreement:.3f} % of pixels, "
        f"IoU {found.mask_iou:.4f}"
    )


if __name__ == "__main__":
    sys.exit(main())
