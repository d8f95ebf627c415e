"""The training stream: what stands in it, where it goes on, and how damage is named."""

import numpy as np
import numpy_transform
import pytest
import tensorflow as tf

from tfseg.data.bad_records import BadRecords
from tfseg.data.batches import explain_failure, training_batches
from tfseg.data.records import HEADER_BYTES, Split, parse
from tfseg.data.sampling import PairStream
from tfseg.data.transform import Transform, decode_image
from tfseg.errors import InputError

PLAIN = Transform(96, 96, mirror=False, random_crop=False)
AUGMENTED = Transform(32, 36)


def _streams(records, seed=0, **masks):
    return {
        domain: PairStream(Split.load(records, f"{domain}_train"), seed, masks=masks.get(domain, default))
        for domain, default in (("source", None), ("target", 0))
    }


def _take(dataset, count):
    return list(dataset.take(count).as_numpy_iterator())


def _assert_equal(left, right):
    tf.nest.map_structure(np.testing.assert_array_equal, left, right)


def _stored(split, index):
    """Image, mask and labels of a record, decoded here."""
    record = parse(tf.constant(split.read(index)))
    mask = tf.io.decode_png(record["mask"]).numpy()[..., 0]
    return decode_image(record["image"]).numpy(), mask, record["labels"].numpy().tolist()


def test_structure(synthetic_records):
    streams = _streams(synthetic_records)
    (batch,) = _take(training_batches(streams, AUGMENTED, 6, seed=0), 1)
    labels = streams["source"].split.label_map.num_labels
    assert set(batch) == {"source", "target"}
    for examples in batch.values():
        shapes = {name: (value.shape, value.dtype.name) for name, value in examples.items()}
        assert shapes == {
            "image": ((3, 32, 32, 3), "float32"),
            "label": ((3,), "int32"),
            "mask": ((3, 32, 32), "uint8"),
            "present": ((3, labels), "float32"),
        }


def test_examples_are_the_records_of_their_pairs(synthetic_records):
    """Without augmentation every example can be read off its record."""
    streams = _streams(synthetic_records)
    batches = _take(training_batches(streams, PLAIN, 8, seed=5), 6)
    for domain, stream in streams.items():
        for step, batch in enumerate(batches):
            for i in range(4):
                pair = stream.at(4 * step + i)
                image, mask, labels = _stored(stream.split, pair.index)
                image, mask = numpy_transform.pad(image, mask)
                got = {name: value[i] for name, value in batch[domain].items()}
                expected = numpy_transform.bilinear(image.astype(np.float64), 96)
                np.testing.assert_allclose(got["image"], expected, atol=0.05)
                assert got["label"] == pair.label and pair.label in labels
                assert (np.flatnonzero(got["present"]) + 1).tolist() == labels
                if domain == "target":
                    assert (got["mask"] == 255).all()
                    continue
                own = np.where(mask == 255, 255, np.where(mask == pair.label, 1, 0))
                before, behind = (numpy_transform.nearest(own, 96, side) for side in (-1, 1))
                np.testing.assert_array_equal(got["mask"][before == behind], before[before == behind])


def test_stored_target_masks_never_reach_the_stream(synthetic_records):
    streams = _streams(synthetic_records)
    assert all(info.has_mask for info in streams["target"].split.infos)  # The temptation is there.
    for batch in _take(training_batches(streams, AUGMENTED, 8, seed=0), 20):
        assert (batch["target"]["mask"] == 255).all()
        assert set(np.unique(batch["source"]["mask"])) <= {0, 1, 255}
        assert (batch["source"]["mask"] == 1).any()


def test_target_masks_that_were_asked_for(synthetic_records):
    streams = _streams(synthetic_records, target=3)
    shown = set()
    pairs = len(streams["target"])
    batches = _take(training_batches(streams, PLAIN, 2, seed=0), pairs)
    for position, batch in enumerate(batches):
        pair = streams["target"].at(position)
        visible = bool((batch["target"]["mask"] != 255).any())
        assert visible == pair.use_mask
        if visible:
            shown.add(pair.index)
            assert set(np.unique(batch["target"]["mask"])) <= {0, 1, 255}
    assert len(shown) == 3


@pytest.mark.parametrize("start", [1, 3, 7])
def test_a_resumed_stream_is_the_tail_of_the_undisturbed_one(synthetic_records, start):
    whole = _take(training_batches(_streams(synthetic_records), AUGMENTED, 10, seed=3), start + 4)
    tail = _take(training_batches(_streams(synthetic_records), AUGMENTED, 10, 3, start_step=start), 4)
    _assert_equal(tail, whole[start:])


def test_a_resumed_stream_far_away(synthetic_records):
    """Two readers of the same streams stand in different epochs and do not disturb each other."""
    streams = _streams(synthetic_records)
    near, far = (iter(training_batches(streams, AUGMENTED, 8, 0, start)) for start in (0, 500))
    mixed = [(next(near), next(far)) for _ in range(5)]
    alone = [_take(training_batches(_streams(synthetic_records), AUGMENTED, 8, 0, s), 5) for s in (0, 500)]
    for i, (left, right) in enumerate(mixed):
        _assert_equal(left, alone[0][i])
        _assert_equal(right, alone[1][i])


def test_batches_of_any_size_hold_the_same_stream(synthetic_records):
    """Pairs and their augmentation hang on the position, not on how the stream is cut."""
    small = _take(training_batches(_streams(synthetic_records), AUGMENTED, 4, seed=1), 6)
    large = _take(training_batches(_streams(synthetic_records), AUGMENTED, 12, seed=1), 2)

    def joined(batches):
        return tf.nest.map_structure(lambda *parts: np.concatenate(parts), *batches)

    _assert_equal(joined(small), joined(large))


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_replicas_share_the_batches_of_one(synthetic_records, processes):
    """Laid side by side, the parts that processes read for their replicas are the whole batches."""
    parts, start = 4, 3
    whole = _take(training_batches(_streams(synthetic_records), AUGMENTED, 24, 3, start), 2)
    local = parts // processes
    read = []
    for first in range(0, parts, local):
        own = range(first, first + local)
        dataset = training_batches(_streams(synthetic_records), AUGMENTED, 24, 3, start, parts=parts, own=own)
        assert dataset.cardinality() == tf.data.INFINITE_CARDINALITY  # Else workers would ask each other.
        read.append(_take(dataset, 2 * local))
    for step, batch in enumerate(whole):
        elements = [element for each in read for element in each[step * local : (step + 1) * local]]
        joined = tf.nest.map_structure(lambda *pieces: np.concatenate(pieces), *elements)
        _assert_equal(joined, batch)


def test_seeds_and_domains_are_augmented_apart(synthetic_records):
    split = Split.load(synthetic_records, "source_train")
    as_target = Split(
        split.data_dir, split.name, "target", split.label_map, split.shards, split.infos, split.summary
    )

    def images(domain_split, seed):
        # The same pairs in the same order, so that augmentation alone may differ.
        stream = PairStream(split, 0)
        stream.split = domain_split
        return _take(training_batches({"any": stream}, AUGMENTED, 24, seed), 1)[0]["any"]["image"]

    first = images(split, 0)
    np.testing.assert_array_equal(images(split, 0), first)
    others = [images(as_target, 0), images(split, 1), images(as_target, 1)]
    for i, left in enumerate([first, *others]):
        for right in others[i:]:
            same = (left == right).all(axis=(1, 2, 3)).mean()
            assert same < 0.3


def test_one_domain_alone_fills_the_batch(synthetic_records):
    streams = {"source": _streams(synthetic_records)["source"]}
    (batch,) = _take(training_batches(streams, AUGMENTED, 5, seed=0), 1)
    assert set(batch) == {"source"} and batch["source"]["label"].shape == (5,)


def test_batches_that_cannot_be_halved_are_refused(synthetic_records):
    with pytest.raises(InputError, match="batch_size=7: must be a multiple of 2"):
        training_batches(_streams(synthetic_records), AUGMENTED, 7, seed=0)


def _damaged_copy(records, folder, index):
    """Copies the records and flips bytes within the image of one source record; sizes stay."""
    for path in records.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    split = Split.load(folder, "source_train")
    info = split.infos[index]
    path = folder / split.shards[info.shard]
    data = bytearray(path.read_bytes())
    body = slice(info.offset + HEADER_BYTES, info.offset + HEADER_BYTES + info.length)
    image = parse(tf.constant(bytes(data[body])))["image"].numpy()
    at = data.index(image, body.start)
    for i in range(at, at + len(image)):
        data[i] ^= 0x5A
    path.write_bytes(data)
    return path


def test_a_damaged_record_is_named_with_its_file(synthetic_records, tmp_path):
    path = _damaged_copy(synthetic_records, tmp_path, index=5)
    streams = _streams(tmp_path)
    image_id = streams["source"].split.infos[5].image_id
    batches = iter(training_batches(streams, AUGMENTED, 8, seed=0))
    for step in range(20):
        try:
            next(batches)
        except tf.errors.OpError as error:
            found = explain_failure(streams, 8, step, error)
            break
    else:
        pytest.fail("the damage passed")
    assert isinstance(found, InputError)
    assert str(found).startswith(f"{path}: record 5 ({image_id}): its checksum is wrong")
    assert f"tfrecords.verify {tmp_path}" in str(found)


def test_damaged_records_are_skipped_by_choice(synthetic_records, tmp_path, capfd):
    _damaged_copy(synthetic_records, tmp_path, index=5)
    streams, whole = _streams(tmp_path), _streams(synthetic_records)
    bad_records = BadRecords()
    found = _take(training_batches(streams, AUGMENTED, 8, seed=0, bad_records=bad_records), 12)
    expected = _take(training_batches(whole, AUGMENTED, 8, seed=0), 12)
    assert len(bad_records) == 1
    assert capfd.readouterr().err.count("skipped: ") == 1
    for step, (batch, other) in enumerate(zip(found, expected, strict=True)):
        for place in range(4):
            pair = streams["source"].at(4 * step + place)
            same = np.array_equal(batch["source"]["image"][place], other["source"]["image"][place])
            assert same == (pair.index != 5)
        np.testing.assert_array_equal(batch["target"]["image"], other["target"]["image"])


def test_a_split_without_a_whole_record_ends(synthetic_records, tmp_path):
    for path in synthetic_records.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    streams = _streams(tmp_path)
    for shard in streams["target"].split.shards:
        path = tmp_path / shard
        path.write_bytes(bytes(path.stat().st_size))
    with pytest.raises(tf.errors.OpError, match="no record of split target_train is whole"):
        _take(training_batches(streams, AUGMENTED, 8, seed=0, bad_records=BadRecords()), 1)


def test_a_shard_that_shrinks_while_training_is_named(synthetic_records, tmp_path):
    for path in synthetic_records.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    streams = _streams(tmp_path)
    shard = tmp_path / streams["target"].split.shards[0]
    shard.write_bytes(shard.read_bytes()[:40])
    with pytest.raises(tf.errors.OpError) as caught:
        _take(training_batches(streams, AUGMENTED, 8, seed=0), 30)
    message = str(explain_failure(streams, 8, 0, caught.value))
    assert message.startswith(f"{shard}: record ") and "the file ends within it" in message
