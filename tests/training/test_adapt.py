"""`tfseg.adapt`: old categories keep their bits, new ones learn from labels alone."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from in_process import call
from small_networks import THREE_BLOCKS, contrast
from small_training import batch_of, gradients_of, network, stage_of
from split_files import write_split

from export.signatures import Endpoints, Options
from tfseg import adapt
from tfseg.data.labels import Label, LabelMap
from tfseg.inference.segmenter import Segmenter
from tfseg.model_dir import ModelDir, read_model_dir, save_model_dir
from tfseg.models import BUILDERS, build_classifier
from tfseg.training.stages import label_axis

OLD = (Label(1, "dog", "target"), Label(2, "cat", "target"), Label(3, "bench", "source"))
NEW = (Label(4, "horse", "target"), Label(5, "sheep", "target"))
OLD_MAP, NEW_MAP = LabelMap("old", OLD), LabelMap("new", OLD + NEW)
CONFIG = THREE_BLOCKS.replace(image_size=32, num_labels=3, classifier_dropout=0.0, feature_scale=0.1)
SHORT = ("--steps=6", "--classifier_steps=4", "--batch_size=4", "--learning_rate=0.01", "--seed=2")


def write_records(folder, label_map, labels, name="target_train", domain="target"):
    """For each tuple of labels an image of a colour of its own, and noise."""
    rng = np.random.default_rng(len(labels))
    samples = []
    for number, shown in enumerate(labels):
        mask = np.resize(np.array((0, *shown), np.uint8), (36, 30))
        image = rng.integers(0, 256, 3) // 2 + rng.integers(0, 128, (36, 30, 3))
        samples.append((f"{name}{number}", image.astype(np.uint8), mask))
    write_split(folder, label_map, samples, name, domain)
    return folder


def old_model(path, model="transfernet", with_classifier=False):
    """A model directory of the old labels whose attention and masks are far from uniform."""
    keras.utils.set_random_seed(4)
    built = BUILDERS[model](CONFIG)
    contrast(built)
    save_model_dir(
        ModelDir(path, model, CONFIG, OLD_MAP), built, build_classifier(CONFIG) if with_classifier else None
    )
    return path


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    return write_records(tmp_path_factory.mktemp("new"), NEW_MAP, [(4,), (5,), (1, 4), (2, 5), (4, 5)])


@pytest.fixture(scope="module")
def old_records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("old")
    write_records(folder, OLD_MAP, [(3,), (3,)], "source_train", "source")
    return write_records(folder, OLD_MAP, [(1,), (2,), (1, 2)])


def run(old, new, records, *words):
    return call(
        adapt.main, f"--model_dir={old}", f"--output_dir={new}", f"--data_dir={records}", *SHORT, *words
    )


@pytest.fixture(scope="module", params=("transfernet", "baselinenet", "decouplednet"))
def adapted(request, records, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    old = old_model(folder / "old", request.param, with_classifier=True)
    done = run(old, folder / "adapted", records)
    assert done.returncode == 0, done.stderr
    return old, folder / "adapted"


def segmented(model_dir, labels):
    images = np.random.default_rng(1).integers(0, 256, (3, 40, 28, 3), np.uint8)
    segmenter = Segmenter.load(model_dir, label_domain="all")
    return [segmenter.segment(image, labels=labels) for image in images]


def test_masks_of_old_categories_keep_their_bits(adapted):
    old, new = adapted
    for before, after in zip(segmented(old, [1, 2, 3]), segmented(new, [1, 2, 3]), strict=True):
        assert np.ptp(before.probabilities) > 0.01
        np.testing.assert_array_equal(after.probabilities, before.probabilities)
        np.testing.assert_array_equal(after.attention, before.attention)
        np.testing.assert_array_equal(after.label_map, before.label_map)


@pytest.mark.parametrize("stage", ["joint", "classifier"])
def test_nothing_but_rows_of_new_labels_moves(adapted, stage):
    old, new = adapted
    before, after = (read_model_dir(path).load(stage) for path in (old, new))
    theirs = {variable.path: variable.numpy() for variable in before.weights}
    moved = set()
    for ours in after.weights:
        value, axis = ours.numpy(), label_axis(ours)
        if axis is not None:
            moved.add("/".join(ours.path.split("/")[-2:]))
            assert (np.take(value, [3, 4], axis) != 0).any()
            value = np.take(value, [0, 1, 2], axis)
        # The old network has no queries; those of its labels stay 0.
        np.testing.assert_array_equal(value, theirs.pop(ours.path, np.zeros_like(value)), err_msg=ours.path)
    assert not theirs
    rows = {"cls_embed/kernel", "att_query/kernel", "cls_score/kernel", "cls_score/bias"}
    assert moved == (rows if after.name == "transfernet" else {"score/kernel", "score/bias"})


@pytest.mark.parametrize("adapted", ["transfernet"], indirect=True)
def test_exported_masks_of_old_categories_keep_their_bits(adapted):
    """The graph that an export holds, called as it is traced for serving."""
    image = np.random.default_rng(3).integers(0, 256, (2, 40, 28, 3), np.uint8)
    probabilities = []
    for path in adapted:
        directory = read_model_dir(path)
        network, labels = directory.load("joint"), directory.label_map
        endpoints = Endpoints(network, None, directory.config, labels, Options(label_domain="all"))
        pixels = tf.TensorSpec((None, None, None, 3), tf.uint8)
        wanted = {"image": pixels, "label": tf.TensorSpec((None,), tf.int32)}
        serve = tf.function(endpoints._serve, [wanted], autograph=False)
        found = serve({"image": tf.constant(image), "label": tf.constant([2, 3])})
        probabilities.append(found["probability"].numpy())
    assert np.ptp(probabilities[0]) > 0.01
    np.testing.assert_array_equal(*probabilities)


def test_gradients_of_new_rows_are_those_of_the_whole():
    batch = batch_of(8, domains=("target",))
    _, whole = gradients_of(stage_of(network(), "attention"), batch)
    _, rows = gradients_of(stage_of(network(), "attention", first_label=2), batch)
    assert {path.split("/")[-2] for path in rows} == {"cls_embed", "cls_score"}
    assert len(rows) == 3
    for path, gradient in rows.items():
        if "cls_embed" in path:
            gradient, expected = gradient.T, whole[path].T
        else:
            expected = whole[path]
        assert not gradient[..., :1].any() and expected[..., :1].any()
        np.testing.assert_allclose(gradient[..., 1:], expected[..., 1:], rtol=1e-5, atol=1e-9)


def test_all_of_the_attention_moves_if_asked_and_old_pairs_are_rehearsed(records, old_records, tmp_path):
    old, new = old_model(tmp_path / "old"), tmp_path / "adapted"
    done = run(old, new, records, "--train=attention", f"--rehearsal_dir={old_records}")
    assert done.returncode == 0, done.stderr
    before, after = read_model_dir(old).load("joint"), read_model_dir(new).load("joint")
    for part, moves in (("encoder", False), ("decoder", False), ("attention", True)):
        theirs = {variable.path: variable.numpy() for variable in before.get_layer(part).weights}
        same = [np.array_equal(v.numpy(), theirs.get(v.path)) for v in after.get_layer(part).weights]
        assert not any(same) if moves else all(same)
    told = json.loads((new / "joint/run.json").read_text())["adapted_from"]
    assert told["train"] == "attention" and len(told["rehearsal"]) == 2
    assert told["weights"] == read_model_dir(old).fingerprint(("joint",))


def test_a_resumed_run_ends_where_a_whole_one_does(records, tmp_path):
    old = old_model(tmp_path / "old")
    assert run(old, tmp_path / "parts", records, "--steps=2").returncode == 0
    again = run(old, tmp_path / "parts", records)
    assert "starts at update 2" in again.stdout
    assert run(old, tmp_path / "whole", records).returncode == 0
    weights = [read_model_dir(tmp_path / name).load("joint").weights for name in ("parts", "whole")]
    for left, right in zip(*weights, strict=True):
        np.testing.assert_array_equal(left.numpy(), right.numpy())


@pytest.mark.parametrize(
    ("labels", "shown", "message"),
    [
        (OLD[::-1] + NEW, [(4,), (5,)], "label 1 is bench (source), it must stay dog (target)"),
        (OLD, [(1,)], "has no category that"),
        (OLD[:2], [(1,)], "2 labels, where there were 3"),
        (OLD + NEW, [(4,)], "no image shows sheep"),
    ],
)
def test_records_that_do_not_fit(tmp_path, labels, shown, message):
    labels = tuple(Label(number, one.name, one.domain) for number, one in enumerate(labels, start=1))
    records = write_records(tmp_path / "records", LabelMap("other", labels), shown)
    done = run(old_model(tmp_path / "old"), tmp_path / "adapted", records)
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert not (tmp_path / "adapted").exists()


def test_what_cannot_be_adapted_is_said(records, tmp_path):
    old = old_model(tmp_path / "old")
    done = run(old, old, records)
    assert done.returncode == 2 and "give another" in done.stderr
    done = run(
        old, tmp_path / "adapted", records, f"--rehearsal_dir={records}", "--rehearsal_splits=target_train"
    )
    assert done.returncode == 2 and "another label map" in done.stderr
    done = run(old, tmp_path / "adapted", records, "--rehearsal_share=1")
    assert done.returncode == 2 and "--rehearsal_share=1.0" in done.stderr


def test_a_category_that_all_images_show_is_warned_of(tmp_path):
    labels = LabelMap("new", (*OLD, NEW[0]))
    records = write_records(tmp_path / "records", labels, [(4,), (1, 4)])
    done = run(old_model(tmp_path / "old"), tmp_path / "adapted", records, "--steps=1")
    assert done.returncode == 0 and "warning: all images show horse" in done.stderr
