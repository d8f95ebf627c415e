"""Measures what the decoder does with its map: mIoU with its own, and with others in its place.

Each label of an image is decoded with the map that the attention gives (`own`), the one for a label that
the image does not show (`wrong label`), the one of another image of the label (`other image`), the mean over
all images (`mean`), a constant, and the share of the label's mask in each position (`mask`). Where `own` is
no better than `mean`, the masks come from the switches alone, whatever the attention looks at.
"""

import dataclasses
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from tfseg import cli
from tfseg.data.examples import Example, read_example
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.evaluation.attention_shares import covered_cells
from tfseg.evaluation.miou import ConfusionMatrix
from tfseg.inference.postprocessing import BACKGROUND_FACTOR, image_probabilities, merge
from tfseg.inference.preprocessing import to_square
from tfseg.model_dir import read_model_dir

if TYPE_CHECKING:
    from tqdm import tqdm

    from tfseg.inference.networks import KerasNetwork

EXAMPLES = ("--model_dir=runs/photos/model --data_dir=runs/photos/records --background_factor=0.25",)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured; each field is a flag.

    ```python
    >>> Options(model_dir="model", data_dir="records").split
    'target_val'

    ```
    """

    model_dir: str = cli.flag("Model directory of tfseg.train, after stage joint.", exists="folder")
    data_dir: str = cli.flag("Directory of the records.", exists="folder")
    split: str = cli.flag("Records with masks; the labels are those of the masks.", default="target_val")
    background_factor: float = cli.flag("As for tfseg.evaluate.", default=BACKGROUND_FACTOR, lower=1e-6)
    seed: int = cli.flag("Chooses the other image and the wrong label.", default=0, lower=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.experiments.exchanged_maps", __doc__, Options, _run, argv, EXAMPLES)


def _run(options: Options) -> None:
    directory = read_model_dir(options.model_dir)
    split = Split.load(options.data_dir, options.split)
    split.require_labels(directory.label_map)
    config = directory.config
    with cli.working("loading the model"):
        from tfseg.inference.networks import KerasNetwork

        network = KerasNetwork(directory.load("joint"), None, config.decoder_input, config.image_fit)
    found = measure(network, split, options.background_factor, options.seed)
    print(f"{'map':12} {'mIoU %':>7}")
    for way, miou in found.items():
        print(f"{way:12} {100 * miou:7.1f}")


def measure(
    network: "KerasNetwork", split: Split, background_factor: float, seed: int = 0
) -> dict[str, float]:
    """Evaluates the masks that the decoder draws from each kind of map.

    Args:
        network: TransferNet or BaselineNet.
        split: Records with masks.
        background_factor: See `scale_background`.
        seed: Chooses the other image and the wrong label.

    Returns:
        mIoU over background and the labels of the split's domain, in 0 to 1, by kind of map.

    Raises:
        InputError: If no record has a mask, or one is damaged.
    """
    numbers = [number for number, info in enumerate(split.infos) if info.has_mask]
    if not numbers:
        raise InputError(f"split {split.name} in {split.data_dir}: no record has a mask")
    with cli.progress_bar(f"{split.name}: maps", "image", total=len(numbers)) as bar:
        kinds = _all_maps(network, _examples(split, numbers, bar), split, np.random.default_rng(seed))
    matrices = {way: ConfusionMatrix(split.label_map.ids(split.domain)) for way in kinds}
    start = 0
    with cli.progress_bar(f"{split.name}: masks", "image", total=len(numbers)) as bar:
        for example in _examples(split, numbers, bar):
            stop = start + len(example.labels)
            encoded = network.encode(_square(example, network)[None])
            for way, maps in kinds.items():
                label_map = np.zeros_like(example.mask)
                if start < stop:  # Else an image of background alone.
                    scores = network.decode(encoded, np.zeros(stop - start), maps[start:stop])
                    size, fit = example.mask.shape, network.image_fit
                    probabilities = image_probabilities(scores, *size, background_factor, fit)
                    label_map = merge(probabilities, example.labels)
                matrices[way].add(example.mask, label_map)
            start = stop
    return {way: matrix.mean_iou() for way, matrix in matrices.items()}


def _examples(split: Split, numbers: list[int], bar: "tqdm") -> Iterator[Example]:
    for number in numbers:
        yield read_example(split, number)
        bar.update()


def _square(example: Example, network: "KerasNetwork") -> np.ndarray:
    return to_square(example.image, network.image_size, network.image_fit)


def _all_maps(
    network: "KerasNetwork", examples: Iterator[Example], split: Split, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Returns `[P, h, w]` for the P pairs of all images, by kind."""
    ids = np.array(split.label_map.ids(split.domain))
    own, wrong, masks, labels = [], [], [], []
    for example in examples:
        if not example.labels:
            continue
        encoded, first = network.encode(_square(example, network)[None]), np.zeros(len(example.labels))
        absent = np.setdiff1d(ids, example.labels)
        instead = rng.choice(absent if absent.size else ids, len(example.labels))
        own.append(network.decoder_maps(encoded, first, example.labels))
        wrong.append(network.decoder_maps(encoded, first, instead))
        for label in example.labels:
            masks.append(covered_cells(example.mask == label, *own[-1].shape[1:], network.image_fit))
        labels += example.labels
    if not labels:
        raise InputError(f"split {split.name} in {split.data_dir}: its masks hold no label")
    own_maps, labels = np.concatenate(own), np.array(labels)
    exchanged = np.arange(len(labels))
    for label in np.unique(labels):
        same = np.flatnonzero(labels == label)
        order = rng.permutation(same)
        exchanged[order] = np.roll(order, 1)
    low, high = np.quantile(own_maps, (0.1, 0.95))  # The range that the decoder was trained on.
    return {
        "own": own_maps,
        "wrong label": np.concatenate(wrong),
        "other image": own_maps[exchanged],
        "mean": np.broadcast_to(own_maps.mean(axis=0), own_maps.shape),
        "constant": np.full_like(own_maps, own_maps.mean()),
        "mask": low + (high - low) * np.stack(masks),
    }


if __name__ == "__main__":
    sys.exit(main())
