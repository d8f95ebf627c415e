"""Makes a model directory of the authors' Caffe files."""

import dataclasses
import sys
from collections.abc import Sequence

from tfseg import cli
from tfseg.files import require_output_folder

EXAMPLES = (
    "--caffemodel=TransferNet.caffemodel --output=model",
    "--caffemodel=TransferNet.caffemodel --caffemodel=classifier.caffemodel --output=model",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Which Caffe files become which model directory; each field is a flag.

    ```python
    >>> ImportOptions(caffemodel=("TransferNet.caffemodel",), output="model").label_map is None
    True

    ```
    """

    caffemodel: tuple[str, ...] = cli.flag(
        "File of Caffe weights: a TransferNet, or the separate classifier; its layers tell which. "
        "Give the flag twice for both."
    )
    output: str = cli.flag("Model directory to write, new.")
    label_map: str | None = cli.flag(
        "JSON file of the labels, ids in the order of the network's one-hot input; without it, "
        "tfseg:labels/voc20_coco60.json where the network has 80, else label_1, label_2, ...",
        default=None,
        exists="file",
    )


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.import_caffe", __doc__, ImportOptions, _run, argv, EXAMPLES)


def _run(options: ImportOptions) -> None:
    require_output_folder(options.output, "--output=")
    # TensorFlow is imported once the flags are known to be right.
    from tfseg.importers.model_dir import import_model_dir

    import_model_dir(options.caffemodel, options.output, options.label_map)


if __name__ == "__main__":
    sys.exit(main())
