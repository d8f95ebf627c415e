"""Calls an exported model, on disk or on a server, and writes the mask of one image."""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from export.rest import RestModel
from tfseg import cli
from tfseg.data.images import read_image
from tfseg.data.labels import MAX_LABELS, Label, LabelMap
from tfseg.data.voc_colors import save_indexed_png
from tfseg.errors import InputError
from tfseg.inference.postprocessing import BACKGROUND_FACTOR, from_square, merge, scale_background
from tfseg.inference.preprocessing import to_square

# TensorFlow is imported only where a SavedModel is loaded: a client of a server needs none of it.

EXAMPLES = (
    "--model=runs/demo/export --image=cat.jpg --label=cat --output=mask.png",
    "--url=http://localhost:8501/v1/models/tfseg --image=cat.jpg --label=8 --output=mask.png",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClientOptions:
    """Which model is asked for which image; each field is a flag."""

    image: str = cli.flag("Image file.")
    label: tuple[str, ...] = cli.flag("Name or id of a label; may stand several times.")
    output: str = cli.flag("Mask to write: a palette PNG, pixel = label id.")
    model: str | None = cli.flag(
        "SavedModel of export.saved_model, or the folder of its versions.", default=None
    )
    url: str | None = cli.flag(
        "TensorFlow Serving, as in http://localhost:8501/v1/models/tfseg.", default=None
    )
    label_map: str | None = cli.flag(
        "With --url: JSON file of the labels; without, labels are ids.", default=None
    )
    timeout: float = cli.flag("With --url: seconds to wait for an answer.", default=60.0, lower=0.001)
    background_factor: float = cli.flag(
        "Factor on the background's probability; 1 changes nothing.", default=BACKGROUND_FACTOR, lower=1e-6
    )

    def __post_init__(self) -> None:
        """Refuses a call of two models, or of none."""
        if bool(self.model) == bool(self.url):
            raise InputError("give one of --model and --url")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("export.client", __doc__, ClientOptions, _run, argv, EXAMPLES)


def _run(options: ClientOptions) -> None:
    image = read_image(options.image)
    if options.url:
        label_map = LabelMap.load(options.label_map) if options.label_map else _ids_only(options.label)
        labels = label_map.resolve(options.label)
        model = RestModel(options.url, options.timeout)
    else:
        model = SavedModel(options.model)
        label_map = model.label_map
        labels = label_map.resolve(options.label)
    mask = segment(model, image, labels, options.background_factor)
    save_indexed_png(options.output, mask)
    for label in labels:
        share = 100 * float((mask == label).mean())
        print(f"{label_map.label(label).name}: {share:.1f} % of {options.image}")
    print(options.output)


class SavedModel:
    """An export on disk, called without the code of its network.

    Args:
        path: A version directory, or the folder of versions, of which the newest is taken.

    Attributes:
        image_size: Side of the square that the network takes, pixels.
        label_map: What its label ids mean.

    Raises:
        InputError: If there is none, or it is no export of this project.
    """

    def __init__(self, path: str) -> None:
        from tfseg.inference.networks import SavedModelNetwork
        from tfseg.model_dir import find_saved_model

        version = find_saved_model(Path(path))
        if version is None:
            raise InputError(f"{path}: holds no SavedModel; python -m export.saved_model writes one")
        self._network = SavedModelNetwork(version)
        self.image_size = self._network.image_size
        self.label_map = LabelMap.load(version / "assets.extra" / "labels.json")

    def probabilities(self, square: np.ndarray, labels: tuple[int, ...]) -> np.ndarray:
        """Says where labels are in one image; see `export.rest.RestModel.probabilities`."""
        index = np.zeros(len(labels), np.int32)
        return self._network.locate(square[None], index, np.array(labels, np.int32)).probability


def segment(
    model: SavedModel | RestModel,
    image: np.ndarray,
    labels: tuple[int, ...],
    background_factor: float = BACKGROUND_FACTOR,
) -> np.ndarray:
    """Segments one image as `tfseg.Segmenter` does without a CRF (SPEC 7).

    Args:
        model: On disk or on a server.
        image: uint8 `[H, W, 3]`.
        labels: Ids to look for.
        background_factor: On the background's probability before it is renormalised.

    Returns:
        uint8 `[H, W]`, label ids, 0 where background.
    """
    probabilities = model.probabilities(to_square(image, model.image_size), labels)
    probabilities = scale_background(probabilities, background_factor)
    return merge(from_square(probabilities, *image.shape[:2]).clip(0, 1), labels)


def _ids_only(words: Sequence[str]) -> LabelMap:
    """Returns nameless labels for a server that does not tell its own.

    Raises:
        InputError: If a word is no id.
    """
    for word in words:
        if not word.isdecimal():
            raise InputError(
                f"--label={word}: the server does not tell names; give an id, or --label_map=FILE "
                "(assets.extra/labels.json of the export)"
            )
    return LabelMap("ids", tuple(Label(i, f"label {i}", "target") for i in range(1, MAX_LABELS + 1)))


if __name__ == "__main__":
    sys.exit(main())
