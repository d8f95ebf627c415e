"""The training stream as a `tf.data.Dataset` of global batches, half of each domain."""

import sys
import threading
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfseg.data.examples import read_example, record_name
from tfseg.data.records import Split, parse
from tfseg.data.sampling import Pair, PairStream
from tfseg.data.transform import Transform, apply, binary_mask, decode_image, decode_mask
from tfseg.errors import InputError


def training_batches(
    streams: Mapping[str, PairStream],
    transform: Transform,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    passed_over: "PassedOver | None" = None,
) -> tf.data.Dataset:
    """Builds the stream of global batches from `start_step` on, without end.

    Every update sees the same number of pairs of each domain (SPEC 4.6).

    Args:
        streams: `{"source": ..., "target": ...}`, or one of them.
        transform: Geometry of the examples.
        batch_size: Pairs an update, over all domains and replicas.
        seed: Seed of crops and mirroring.
        start_step: Number of the first update.
        passed_over: Takes damaged records, in whose place the next pairs are read; None fails at the first.

    Returns:
        Dataset of `{domain: examples}`, each a dictionary of `image` float32 `[b, S, S, 3]`, `label` int32
        `[b]`, `mask` uint8 `[b, S, S]` of 0, 1, 255, and `present` float32 `[b, L]`, all labels of the image.

    Raises:
        InputError: If the batch cannot be halved.
    """
    if batch_size % len(streams):
        raise InputError(f"batch_size={batch_size}: must be a multiple of {len(streams)}, one share a domain")
    share = batch_size // len(streams)
    return tf.data.Dataset.zip(
        {
            domain: _domain_batches(stream, transform, share, seed, start_step, passed_over)
            for domain, stream in streams.items()
        }
    ).prefetch(2)


def _domain_batches(
    stream: PairStream,
    transform: Transform,
    share: int,
    seed: int,
    start_step: int,
    passed_over: "PassedOver | None",
) -> tf.data.Dataset:
    num_labels = stream.split.label_map.num_labels
    # Mirroring and cropping of source and target are drawn apart.
    domain_seed = 2 * seed + (stream.split.domain == "target")

    def fetch(position: np.ndarray) -> tuple[bytes, np.int32, np.bool_]:
        serialized, pair = _read(stream, int(position), passed_over)
        return serialized, np.int32(pair.label), np.bool_(pair.use_mask)

    def example(position: tf.Tensor) -> dict[str, tf.Tensor]:
        serialized, label, use_mask = tf.numpy_function(
            fetch, [position], (tf.string, tf.int32, tf.bool), stateful=False
        )
        record = parse(tf.ensure_shape(serialized, ()))
        label, use_mask = tf.ensure_shape(label, ()), tf.ensure_shape(use_mask, ())
        image = decode_image(record["image"])
        stored = tf.where(use_mask, record["mask"], "")
        image, mask = apply(transform, image, decode_mask(stored, image), tf.stack([domain_seed, position]))
        present = tf.reduce_max(tf.one_hot(record["labels"] - 1, num_labels), axis=0)
        return {
            "image": image,
            "label": label,
            "mask": binary_mask(mask, label, use_mask),
            "present": present,
        }

    positions = tf.data.Dataset.range(start_step * share, np.iinfo(np.int64).max)
    examples = positions.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
    return examples.batch(share, drop_remainder=True)


class PassedOver:
    """The damaged records that a training met, each told once on stderr; for any number of threads."""

    def __init__(self) -> None:
        self._found: set[tuple[str, int]] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Number of different records."""
        return len(self._found)

    def add(self, split: Split, index: int, error: InputError) -> None:
        """Notes record `index` of a split, and what is wrong with it."""
        with self._lock:
            if (split.name, index) not in self._found:
                self._found.add((split.name, index))
                print(f"passed over: {error}", file=sys.stderr)


def _read(stream: PairStream, position: int, passed_over: PassedOver | None) -> tuple[bytes, Pair]:
    # The pair at a position, or the first one behind it whose record is whole.
    for place in range(position, position + len(stream)):
        pair = stream.at(place)
        try:
            return stream.split.read(pair.index), pair
        except InputError as error:
            if passed_over is None:
                raise
            passed_over.add(stream.split, pair.index, error)
    raise InputError(f"{stream.split.data_dir}: no record of split {stream.split.name} is whole")


def explain_failure(
    streams: Mapping[str, PairStream], batch_size: int, step: int, error: tf.errors.OpError
) -> InputError:
    """Finds the record that the input pipeline could not read, for the message.

    TensorFlow's error names an operation, not a file; the records of the next updates are few.

    Args:
        streams: As given to `training_batches`.
        batch_size: As given to `training_batches`.
        step: The update that was about to start.
        error: What TensorFlow raised.
    """
    share = batch_size // len(streams)
    for stream in streams.values():
        split = stream.split
        for position in range(step * share, (step + 8) * share):
            pair = stream.at(position)
            advice = f"run python -m tfrecords.verify {split.data_dir}"
            try:
                read_example(split, pair.index)
                record = parse(split.read(pair.index))
                decode_mask(record["mask"], decode_image(record["image"]))
            except InputError as found:
                return InputError(f"{found}; {advice}")
            except tf.errors.OpError:  # What Pillow reads, TensorFlow may not.
                return InputError(f"{record_name(split, pair.index)}: cannot be decoded; {advice}")
    return InputError(f"reading the records failed before step {step}: {error.message}")
