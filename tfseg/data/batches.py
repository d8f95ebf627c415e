"""The training stream as a `tf.data.Dataset` of global batches, half of each domain."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from tfseg.commands import called
from tfseg.data.bad_records import BadRecords
from tfseg.data.examples import decode_example, record_name
from tfseg.data.images import open_image
from tfseg.data.records import RecordInfo, parse
from tfseg.data.sampling import Pair, PairStream, RehearsedStream
from tfseg.data.transform import (
    Transform,
    binary_mask,
    decode_image,
    decode_mask,
    draw_view,
    view_image,
    view_mask,
)
from tfseg.errors import InputError, RecordError
from tfseg.losses import IGNORE_LABEL

Stream = PairStream | RehearsedStream


def training_batches(
    streams: Mapping[str, Stream],
    transform: Transform,
    batch_size: int,
    seed: int,
    start_step: int = 0,
    bad_records: BadRecords | None = None,
    parts: int = 1,
    own: range = range(1),
) -> tf.data.Dataset:
    """Builds the stream of global batches from `start_step` on, without end.

    Every update sees the same number of pairs of each domain (SPEC 4.6).

    Args:
        streams: `{"source": ..., "target": ...}`, or one of them.
        transform: Geometry of the examples.
        batch_size: Pairs an update, over all domains and replicas.
        seed: Seed of crops and mirroring.
        start_step: Number of the first update.
        bad_records: Takes unusable records, in whose place the next pairs are read; None fails at the first.
        parts: Equal parts, in order, that a batch is cut into: one a replica.
        own: Numbers of those that are read here; each is an element of the dataset.

    Returns:
        Dataset of `{domain: examples}`, each a dictionary of `image` float32 `[b, S, S, 3]`, `label` int32
        `[b]`, `mask` uint8 `[b, S, S]` of 0, 1, 255, and `present` float32 `[b, L]`, all labels of the image.

    Raises:
        InputError: If the batch cannot be cut so.
    """
    if batch_size % (len(streams) * parts):
        cut = f"one share a domain{f' and for each of {parts} replicas' if parts > 1 else ''}"
        raise InputError(f"batch_size={batch_size}: must be a multiple of {len(streams) * parts}, {cut}")
    size = batch_size // (len(streams) * parts)
    stored = {
        domain: stored_pairs(stream, size, start_step, bad_records, parts, own)
        for domain, stream in streams.items()
    }
    return tf.data.Dataset.zip(
        {
            domain: _examples(stream, stored[domain], transform, seed).batch(size, drop_remainder=True)
            for domain, stream in streams.items()
        }
    ).prefetch(2 * len(own))


def stored_pairs(
    stream: Stream,
    size: int,
    start_step: int = 0,
    bad_records: BadRecords | None = None,
    parts: int = 1,
    own: range = range(1),
) -> tf.data.Dataset:
    """Builds the endless stream of pairs of one domain as they are stored.

    Args:
        stream: The pairs.
        size: Pairs of a part of an update, read at once.
        start_step: As for `training_batches`.
        bad_records: As for `training_batches`.
        parts: As for `training_batches`.
        own: As for `training_batches`.

    Returns:
        Dataset of `(position, serialized, label, use_mask)`: scalars, int64, string, int32 and bool.
    """
    reader = _Reader(stream, BadRecords("fail") if bad_records is None else bad_records)

    def fetch(positions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        read = [reader.read(int(position)) for position in positions]
        return (
            np.array([serialized for serialized, _ in read], dtype=object),
            np.array([pair.label for _, pair in read], dtype=np.int32),
            np.array([pair.use_mask for _, pair in read]),
        )

    def pairs(element: tf.Tensor) -> tuple[tf.Tensor, ...]:
        part = element // len(own) * parts + own.start + element % len(own)
        positions = part * size + tf.range(size, dtype=tf.int64)
        fetched = tf.numpy_function(fetch, [positions], (tf.string, tf.int32, tf.bool), stateful=False)
        return positions, *(tf.ensure_shape(values, (size,)) for values in fetched)

    # Python is called once for all of them: a call takes as long as decoding half an image.
    elements = tf.data.Dataset.counter(start_step * len(own))
    return elements.map(pairs, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).unbatch()


def _examples(stream: Stream, stored: tf.data.Dataset, transform: Transform, seed: int) -> tf.data.Dataset:
    num_labels, size = stream.split.label_map.num_labels, transform.image_size
    # Mirroring and cropping of source and target are drawn apart.
    domain_seed = 2 * seed + (stream.split.domain == "target")

    def example(
        position: tf.Tensor, serialized: tf.Tensor, label: tf.Tensor, use_mask: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        record = parse(serialized)
        image = decode_image(record["image"])
        view = draw_view(transform, tf.stack([domain_seed, position]))
        mask = tf.cond(
            use_mask,
            lambda: binary_mask(view_mask(transform, view, decode_mask(record["mask"], image)), label),
            lambda: tf.fill((size, size), tf.constant(IGNORE_LABEL, tf.uint8)),
        )
        return {
            "image": tf.ensure_shape(view_image(transform, view, image), (size, size, 3)),
            "label": label,
            "mask": tf.ensure_shape(mask, (size, size)),
            "present": tf.reduce_max(tf.one_hot(record["labels"] - 1, num_labels), axis=0),
        }

    return stored.map(example, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)


class _Reader:
    """Reads the pair at a position, or the first one behind it whose record can be used.

    TensorFlow's graph can leave out no example. To skip bad records each is therefore decoded here when it is
    read first, and else those that may be others than their index says, or whose pixels may be others in
    evaluation (records of older versions); that the bytes are still the same is tested at every read.
    """

    def __init__(self, stream: Stream, bad_records: BadRecords) -> None:
        self._stream, self._bad_records = stream, bad_records
        self._faults: dict[tuple[int, int], RecordError | None] = {}

    def read(self, position: int) -> tuple[bytes, Pair]:
        """Returns the serialized record and its pair; any number of threads may ask at once."""
        for place in range(position, position + len(self._stream)):
            pair = self._stream.at(place)
            record = id(pair.split), pair.index
            try:
                serialized = pair.split.read(pair.index)
                if record not in self._faults:
                    info = pair.split.infos[pair.index]
                    checked = self._bad_records.policy == "skip" or _may_differ(serialized, info)
                    self._faults[record] = _fault(pair, serialized) if checked else None
                if fault := self._faults[record]:
                    raise fault
                return serialized, pair
            except RecordError as error:
                self._bad_records.add(pair.split, pair.index, error)
        split = self._stream.split
        raise InputError(f"{split.data_dir}: no record of split {split.name} is whole")


def _may_differ(serialized: bytes, info: RecordInfo) -> bool:
    """Whether a record may be another than its index says, or its pixels others in evaluation.

    That goes by the header of its image, which Pillow and TensorFlow may decode differently.
    """
    try:
        features = tf.train.Example.FromString(serialized).features.feature
        if tuple(features["image/labels"].int64_list.value) != info.labels:
            return True
        with open_image(features["image/encoded"].bytes_list.value[0], "image") as image:
            plain = image.mode in ("1", "L", "P", "RGB") and not image.has_transparency_data
            return not plain or image.format not in ("JPEG", "MPO", "PNG")
    except Exception:  # What is wrong with it is told by whoever decodes it.
        return True


def _fault(pair: Pair, serialized: bytes) -> RecordError | None:
    """What keeps a record from being trained on, or None; a mask that is not used may be anything."""
    where = record_name(pair.split, pair.index)
    try:
        expected = decode_example(pair.split, pair.index, serialized, with_mask=pair.use_mask).image
        record = parse(serialized)
        image = decode_image(record["image"])
        if pair.use_mask:
            decode_mask(record["mask"], image)
    except RecordError as error:
        return error
    except tf.errors.OpError:  # What Pillow reads, TensorFlow may not.
        return RecordError("image cannot be decoded", f"{where}: TensorFlow cannot decode it")
    if not np.array_equal(image, expected):
        return RecordError(
            "other pixels than in evaluation", f"{where}: training would see other pixels than evaluation"
        )
    return None


def explain_failure(
    streams: Mapping[str, Stream], batch_size: int, step: int, error: tf.errors.OpError
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
        for position in range(step * share, (step + 8) * share):
            pair = stream.at(position)
            advice = f"run {called('tfrecords.verify')} {pair.split.data_dir}"
            try:
                found = _fault(pair, pair.split.read(pair.index))
            except InputError as error:
                found = error
            if found:
                return InputError(f"{found}; {advice}")
    return InputError(f"reading the records failed before step {step}: {error.message}")
