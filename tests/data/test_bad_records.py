"""Records that cannot be used: training and evaluation name the first, or go on without them and count."""

import pytest
import tensorflow as tf
from color_network import LABEL_MAP, ColorNetwork, draw
from small_networks import TWO_BLOCKS
from split_files import write_split
from spoilt_records import SPOILS, spoil

from tfseg.data.bad_records import BadRecords
from tfseg.data.batches import explain_failure, training_batches
from tfseg.data.records import Split
from tfseg.data.sampling import PairStream
from tfseg.data.transform import Transform
from tfseg.errors import InputError
from tfseg.evaluation.label_quality import evaluate_labels
from tfseg.evaluation.masks import evaluate_masks
from tfseg.evaluation.settings import Settings
from tfseg.inference.segmenter import Segmenter
from tfseg.models import build_classifier

# Evaluation sees what Pillow decodes; whether TensorFlow sees the same matters to training alone.
OF_EVALUATION = [kind for kind in SPOILS if kind != "other pixels than in evaluation"]
KINDS = dict(enumerate(SPOILS, start=1))
WHOLE = [0, len(SPOILS) + 1]


@pytest.fixture
def split(tmp_path):
    samples = []
    for number in range(len(SPOILS) + 2):
        image, mask = draw(40, 50 + number)
        samples.append((f"image{number}", image, mask))
    write_split(tmp_path, LABEL_MAP, samples)
    spoil(tmp_path, "target_val", KINDS)
    return Split.load(tmp_path, "target_val")


def batches_of(split, masks="available", bad_records=None):
    streams = {"target": PairStream(split, 0, masks=masks)}
    transform = Transform(32, 32, mirror=False)
    return streams, training_batches(streams, transform, 4, 0, bad_records=bad_records)


def test_training_counts_each_kind_and_trains_on_the_whole_ones(split, capfd):
    bad_records = BadRecords()
    streams, batches = batches_of(split, bad_records=bad_records)
    count = len(streams["target"]) // 4
    found = list(batches.take(count).as_numpy_iterator())
    whole = [streams["target"].at(i) for i in range(len(streams["target"]))]
    whole = {(pair.index, pair.label) for pair in whole if pair.index in WHOLE}
    assert {label for batch in found for label in batch["target"]["label"]} <= {label for _, label in whole}
    assert bad_records.by_kind() == dict.fromkeys(sorted(SPOILS), 1)
    assert str(bad_records).startswith(f"{len(SPOILS)} bad records were skipped (damaged bytes: 1, ")
    assert capfd.readouterr().err.count("skipped: ") == len(SPOILS)


def test_a_bad_mask_that_is_not_trained_on_does_not_matter(split):
    bad_records = BadRecords()
    _, batches = batches_of(split, masks=0, bad_records=bad_records)
    list(batches.take(8))
    assert set(bad_records.by_kind()) == {kind for kind in SPOILS if not kind.startswith("mask")}


@pytest.mark.parametrize("index", KINDS, ids=SPOILS)
def test_the_first_one_is_named_where_training_stops(split, index):
    kind = KINDS[index]
    streams, _ = batches_of(split)
    first = next(i for i in range(len(streams["target"])) if streams["target"].at(i).index == index)
    error = tf.errors.InvalidArgumentError(None, None, "decoding failed")
    found = explain_failure(streams, 1, first, error)
    assert f"record {index} (image{index})" in str(found), kind
    if kind not in ("not what the index says", "mask with strange ids"):
        with pytest.raises(tf.errors.OpError):
            list(training_batches(streams, Transform(32, 32), 1, 0, start_step=first).take(1))


def test_evaluation_counts_them_by_kind(split, tmp_path, capsys):
    seen = []
    segmenter = Segmenter(ColorNetwork(160, 20), LABEL_MAP)
    with pytest.raises(InputError, match=r"record 1 .image1.: its checksum is wrong"):
        evaluate_masks(segmenter, split, Settings(batch_size=2), tmp_path / "out")
    metrics = evaluate_masks(
        segmenter,
        split,
        Settings(batch_size=2, on_bad_record="skip"),
        tmp_path / "out",
        on_image=lambda done, total: seen.append((done, total)),
    )
    assert metrics["bad_records"] == dict.fromkeys(sorted(OF_EVALUATION), 1)
    assert metrics["images"] == 3 and seen[-1] == (len(split), len(split))
    assert capsys.readouterr().err.count("skipped: ") == len(OF_EVALUATION)
    assert metrics["label_quality"]["recall"] > 0.5


def test_the_labels_of_records_that_can_be_used_are_evaluated(split):
    classifier = build_classifier(TWO_BLOCKS.replace(num_labels=LABEL_MAP.num_labels))
    found = evaluate_labels(classifier, split, (1, 2), batch_size=2, on_bad_record="skip")
    kinds = [kind for kind in OF_EVALUATION if not kind.startswith("mask")]
    assert found["bad_records"] == dict.fromkeys(sorted(kinds), 1)
    assert found["images"] == len(split) - len(kinds)
    with pytest.raises(InputError, match="record 1 "):
        evaluate_labels(classifier, split, (1, 2))


def test_a_split_without_a_record_that_can_be_used_is_refused(tmp_path):
    write_split(tmp_path, LABEL_MAP, [(str(number), *draw(40, 50)) for number in range(3)])
    spoil(tmp_path, "target_val", dict.fromkeys(range(3), "no tf.Example"))
    split = Split.load(tmp_path, "target_val")
    segmenter = Segmenter(ColorNetwork(160, 20), LABEL_MAP)
    with pytest.raises(InputError, match=r"can be used \(3 bad records were skipped \(no tf.Example: 3\)\)"):
        evaluate_masks(segmenter, split, Settings(on_bad_record="skip"), tmp_path / "out")
    classifier = build_classifier(TWO_BLOCKS.replace(num_labels=LABEL_MAP.num_labels))
    with pytest.raises(InputError, match="no record of split target_val can be used"):
        evaluate_labels(classifier, split, (1, 2), on_bad_record="skip")
