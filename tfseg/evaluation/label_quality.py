"""Which labels a whole-image classifier finds: the separate one, or that of stage 0, without any masks."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from tfseg.data.bad_records import BadRecords, OnBadRecord
from tfseg.data.examples import read_example
from tfseg.data.records import Split
from tfseg.errors import InputError, RecordError
from tfseg.evaluation.multilabel import multilabel_metrics, number_or_none
from tfseg.inference.networks import KerasClassifier
from tfseg.inference.postprocessing import THRESHOLD, predicted_labels
from tfseg.inference.preprocessing import ImageFit, to_square
from tfseg.inference.streams import batches, ordered_map

_READERS = 4


def evaluate_labels(
    classifier: keras.Model,
    split: Split,
    allowed: Sequence[int],
    threshold: float = THRESHOLD,
    batch_size: int = 8,
    image_fit: ImageFit = "pad",
    on_image: Callable[[int, int], None] = lambda done, total: None,
    on_bad_record: OnBadRecord = "fail",
) -> dict[str, Any]:
    """Holds a classifier to the image labels of every record.

    Args:
        classifier: From `build_classifier`.
        split: Records; they need no masks.
        allowed: Ids that may be predicted.
        threshold: Probability from which a label is predicted; the most probable one where none is.
        batch_size: Images at once, changes nothing in the result.
        image_fit: As in the classifier's `ModelConfig`.
        on_image: Called with (images done, images in all).
        on_bad_record: Whether a record that cannot be used ends it, or is left out and counted.

    Returns:
        Ready for JSON: `images`, `bad_records` (how many were left out, by kind) and `label_quality`.

    Raises:
        InputError: If there is no record, or one is damaged and not to be left out.
    """
    if not len(split):
        raise InputError(f"split {split.name} in {split.data_dir}: holds no record")
    network, bad_records = KerasClassifier(classifier), BadRecords(on_bad_record)
    squares = record_squares(split, network.image_size, image_fit, bad_records, ahead=2 * batch_size)
    scores: dict[int, np.ndarray] = {}
    for batch in batches(squares, batch_size):
        numbers, images = zip(*batch, strict=True)
        scores.update(zip(numbers, network.classify(np.stack(images)), strict=True))
        on_image(len(scores) + len(bad_records), len(split))
    if not scores:
        raise InputError(f"{split.data_dir}: no record of split {split.name} can be used ({bad_records})")
    predicted = [predicted_labels(score, allowed, threshold) for score in scores.values()]
    truth = [split.infos[number].labels for number in scores]
    quality = label_quality(list(scores.values()), predicted, truth, split)
    return {"images": len(scores), "bad_records": bad_records.by_kind(), "label_quality": quality}


def record_squares(
    split: Split, size: int, fit: ImageFit, bad_records: BadRecords, ahead: int = 8
) -> Iterator[tuple[int, np.ndarray]]:
    """Yields number and square, uint8 `[S, S, 3]`, of each record that can be used, read in threads.

    Args:
        split: Records; their masks are not read.
        size: S, in pixels.
        fit: How an image becomes its square, see `ModelConfig.image_fit`.
        bad_records: Takes the records that cannot be used, or raises.
        ahead: How many are read before they are asked for.
    """

    def read(number: int) -> tuple[int, np.ndarray] | None:
        try:
            image = read_example(split, number, with_mask=False).image
        except RecordError as error:
            bad_records.add(split, number, error)
            return None
        return number, to_square(image, size, fit)

    with ThreadPoolExecutor(_READERS) as threads:
        for found in ordered_map(threads, read, range(len(split)), ahead):
            if found is not None:
                yield found


def label_quality(
    scores: Sequence[Sequence[float]],
    predicted: Sequence[Collection[int]],
    truth: Sequence[Collection[int]],
    split: Split,
) -> dict[str, Any]:
    """Returns `multilabel_metrics` over the labels of a split's domain, by name and with NaN as None.

    Args:
        scores: `[N, L]`, probabilities of ids 1 to L in N images.
        predicted: Labels that were looked for, an entry an image.
        truth: Labels that are there.
        split: Gives the labels that are evaluated.
    """
    quality = multilabel_metrics(np.array(scores), predicted, truth, split.label_map.ids(split.domain))
    per_label = {
        split.label_map.label(label).name: {name: number_or_none(value) for name, value in entry.items()}
        for label, entry in quality.pop("per_label").items()
    }
    return {**{name: number_or_none(value) for name, value in quality.items()}, "per_label": per_label}
