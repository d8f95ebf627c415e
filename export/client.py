"""Calls an exported model: python -m export.client --model=DIR --image=FILE --label=NAME --output=FILE."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from export.rest import RestModel
from tfseg import cli
from tfseg.data.labels import MAX_LABELS, Label, LabelMap
from tfseg.data.voc_colors import save_indexed_png
from tfseg.errors import InputError
from tfseg.inference.geometry import from_square, to_square
from tfseg.inference.images import read_image
from tfseg.inference.labels import resolve_labels
from tfseg.inference.merge import BACKGROUND_FACTOR, halve_background, merge

# TensorFlow is imported only where a SavedModel is loaded: a client of a server needs none of it.

FLAGS = flags.FLAGS
flags.DEFINE_string("model", None, "SavedModel of export.saved_model, or the folder of its versions.")
flags.DEFINE_string("url", None, "TensorFlow Serving, as in http://localhost:8501/v1/models/tfseg.")
flags.DEFINE_string("label_map", None, "With --url: JSON file of the labels; without, labels are ids.")
flags.DEFINE_string("image", None, "Image file.", required=True)
flags.DEFINE_multi_string("label", None, "Name or id of a label; may stand several times.", required=True)
flags.DEFINE_string("output", None, "Mask to write: a palette PNG, pixel = label id.", required=True)
flags.DEFINE_float("timeout", 60.0, "With --url: seconds to wait for an answer.", lower_bound=0.001)
flags.DEFINE_float(
    "background_factor",
    BACKGROUND_FACTOR,
    "Factor on the background's probability; 1 changes nothing.",
    lower_bound=1e-6,
)


def main(argv: Sequence[str]) -> None:
    """Runs the command."""
    del argv
    if bool(FLAGS.model) == bool(FLAGS.url):
        raise InputError("give one of --model and --url")
    image = read_image(FLAGS.image)
    if FLAGS.url:
        label_map = LabelMap.load(FLAGS.label_map) if FLAGS.label_map else _ids_only(FLAGS.label)
        labels = resolve_labels(label_map, FLAGS.label)
        model = RestModel(FLAGS.url, FLAGS.timeout)
    else:
        model = SavedModel(FLAGS.model)
        label_map = model.label_map
        labels = resolve_labels(label_map, FLAGS.label)
    mask = segment(model, image, labels, FLAGS.background_factor)
    save_indexed_png(FLAGS.output, mask)
    for label in labels:
        share = 100 * float((mask == label).mean())
        print(f"{label_map.label(label).name}: {share:.1f} % of {FLAGS.image}")
    print(FLAGS.output)


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
        from tfseg.segmenter import find_saved_model

        version = find_saved_model(Path(path))
        if version is None:
            raise InputError(f"{path}: holds no SavedModel; python -m export.saved_model writes one")
        self._network = SavedModelNetwork(version)
        self.image_size = self._network.image_size
        self.label_map = LabelMap.load(version / "assets.extra" / "labels.json")

    def probabilities(self, square: np.ndarray, labels: tuple[int, ...]) -> np.ndarray:
        """Says where labels are in one image; see `export.rest.RestModel.probabilities`."""
        index = np.zeros(len(labels), np.int32)
        located = self._network.locate(square[None], index, np.array(labels, np.int32))
        return np.stack([answer.probability for answer in located])


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
    probabilities = halve_background(probabilities, background_factor)
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
    cli.run(main)
