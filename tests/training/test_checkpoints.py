"""What a checkpoint must hold for a run to go on as if nothing had happened, and damaged ones."""

import numpy as np
import pytest
import small_training as small
import tensorflow as tf

from tfseg.errors import InputError
from tfseg.model_dir import (
    ModelDir,
    load_classifier,
    load_model,
    read_model_dir,
    restore_weights,
    save_model_dir,
)
from tfseg.training.checkpoints import restore_newest, stage_checkpoint

DROPOUT = small.CONFIG.replace(classifier_dropout=0.5)


def _run(folder, stage, model, config, first, last, seed=0):
    """Updates `first` + 1 to `last` as tfseg.train does them, saving a checkpoint after the last."""
    built = small.network(stage, model, config, seed)
    optimizer, train_step = small.trainer(small.stage_of(built, stage), 8)
    step = tf.Variable(0, dtype=tf.int64)
    checkpoint = stage_checkpoint(built, optimizer, step)
    manager, origin = restore_newest(checkpoint, folder, keep=2)
    assert int(step) == first
    losses = [small.scalars(train_step(small.batch_of(8, i))) for i in range(first, last)]
    step.assign(last)
    manager.save(checkpoint_number=last)
    return origin, losses, [variable.numpy() for variable in built.variables]


@pytest.mark.parametrize(
    ("stage", "model"), [("encoder", "transfernet"), ("joint", "decouplednet")], ids=["encoder", "decoupled"]
)
def test_dropout_and_batch_norm_go_on(tmp_path, stage, model):
    """The state of the random numbers and the moving statistics are in the checkpoint, too."""
    _, whole, expected = _run(tmp_path / "whole", stage, model, DROPOUT, 0, 4)
    origin, first, _ = _run(tmp_path / "parts", stage, model, DROPOUT, 0, 2)
    assert origin is None
    # Another seed: all that was drawn at the start must not matter.
    origin, second, weights = _run(tmp_path / "parts", stage, model, DROPOUT, 2, 4, seed=99)
    assert origin == str(tmp_path / "parts/ckpt-2")
    for left, right in zip(first + second, whole, strict=True):
        assert left == pytest.approx(right, rel=1e-6)
    for left, right in zip(weights, expected, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-6)


@pytest.fixture
def saved(tmp_path):
    """Three checkpoints of one variable, holding 1, 2 and 3."""
    value = tf.Variable(0.0)
    checkpoint = tf.train.Checkpoint(value=value)
    manager = tf.train.CheckpointManager(checkpoint, tmp_path, max_to_keep=3)
    for i in (1, 2, 3):
        value.assign(i)
        manager.save(checkpoint_number=i)
    return tmp_path


def _restore(folder, keep=3):
    value = tf.Variable(0.0)
    manager, origin = restore_newest(tf.train.Checkpoint(value=value), folder, keep)
    return float(value), manager, origin


def _data(folder, number):
    return next(folder.glob(f"ckpt-{number}.data-*"))


DAMAGES = {
    "none": (lambda folder: None, 3),
    "list missing": (lambda folder: (folder / "checkpoint").unlink(), 3),
    "list empty": (lambda folder: (folder / "checkpoint").write_text(""), 3),
    "list cut": (lambda folder: (folder / "checkpoint").write_text('model_checkpoint_path: "ckp'), 3),
    "list behind": (lambda folder: (folder / "checkpoint").write_text('model_checkpoint_path: "ckpt-1"'), 3),
    "list ahead": (lambda folder: [path.unlink() for path in folder.glob("ckpt-3.*")], 2),
    "data empty": (lambda folder: _data(folder, 3).write_bytes(b""), 2),
    "data cut": (lambda folder: _data(folder, 3).write_bytes(_data(folder, 3).read_bytes()[:-9]), 2),
    "data gone": (lambda folder: _data(folder, 3).unlink(), 2),
    "data flipped": (
        lambda folder: _data(folder, 3).write_bytes(bytes(b ^ 1 for b in _data(folder, 3).read_bytes())),
        2,
    ),
    "index empty": (lambda folder: (folder / "ckpt-3.index").write_bytes(b""), 2),
    "index cut": (
        lambda folder: (folder / "ckpt-3.index").write_bytes((folder / "ckpt-3.index").read_bytes()[:60]),
        2,
    ),
    "index gone": (lambda folder: (folder / "ckpt-3.index").unlink(), 2),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_the_newest_checkpoint_that_can_be_read_is_taken(saved, damage, capsys):
    inflict, number = DAMAGES[damage]
    older = {path.name: path.read_bytes() for path in saved.glob("ckpt-[12].*")}
    inflict(saved)
    value, manager, origin = _restore(saved)
    assert value == number and origin == str(saved / f"ckpt-{number}")
    assert {path.name: path.read_bytes() for path in saved.glob("ckpt-[12].*")} == older
    printed = capsys.readouterr().out
    assert ("ckpt-3: passed over" in printed) == damage.startswith(("data", "index c", "index e"))
    # Training goes on, and old ones are cleared away.
    manager.save(checkpoint_number=7)
    assert _restore(saved)[2] == str(saved / "ckpt-7")
    manager.save(checkpoint_number=8)
    kept = {path.name.split(".")[0] for path in saved.glob("ckpt-[1278].index")}
    assert kept == ({"ckpt-2", "ckpt-7", "ckpt-8"} if number == 2 else {"ckpt-7", "ckpt-8"})


def test_nothing_that_can_be_read_is_an_error(saved):
    for path in saved.glob("ckpt-*.index"):
        path.write_bytes(path.read_bytes()[:20])
    with pytest.raises(InputError, match=r"none of its 3 checkpoint\(s\) can be read"):
        _restore(saved)


def test_an_empty_folder_starts_anew(tmp_path):
    value, manager, origin = _restore(tmp_path / "new")
    assert value == 0.0 and origin is None and manager.checkpoints == []


def _model_dir(path, config=small.CONFIG, name="transfernet"):
    return ModelDir(path, name, config, small.LABEL_MAP)


def test_networks_come_back(tmp_path):
    network, classifier = small.network(seed=1), small.network("classifier", seed=2)
    save_model_dir(_model_dir(tmp_path), network, classifier)
    for left, right in ((load_model(tmp_path), network), (load_classifier(tmp_path), classifier)):
        for a, b in zip(left.weights, right.weights, strict=True):
            np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert read_model_dir(tmp_path) == _model_dir(tmp_path)


def test_no_classifier_is_none(tmp_path):
    save_model_dir(_model_dir(tmp_path), small.network())
    assert load_classifier(tmp_path) is None


@pytest.mark.parametrize("part", ["checkpoint", "ckpt-0.index", "ckpt-0.data-00000-of-00001"])
def test_loading_damaged_weights_is_told(tmp_path, part):
    save_model_dir(_model_dir(tmp_path), small.network())
    path = tmp_path / "joint" / part
    path.write_bytes(path.read_bytes()[:50] if part != "checkpoint" else b"")
    if part == "checkpoint":  # The weights are whole, and there is but one place to find them.
        assert load_model(tmp_path).count_params() == small.network().count_params()
        return
    with pytest.raises(InputError, match="joint/ckpt-0: cannot be loaded into transfernet"):
        load_model(tmp_path)


def test_weights_of_another_network_are_refused(tmp_path):
    save_model_dir(_model_dir(tmp_path), small.network())
    checkpoint = str(tmp_path / "joint/ckpt-0")
    for other in (
        small.network(model="decouplednet"),
        small.network(config=small.CONFIG.replace(factors=8)),
        small.network(config=small.CONFIG.replace(encoder_blocks=((1, 4), (2, 6), (2, 8), (1, 8)))),
    ):
        with pytest.raises(InputError, match="cannot be loaded into"):
            restore_weights(other, checkpoint)


def test_a_directory_belongs_to_one_network(tmp_path):
    _model_dir(tmp_path).save()
    _model_dir(tmp_path).save()
    for other in (
        _model_dir(tmp_path, name="baselinenet"),
        _model_dir(tmp_path, small.CONFIG.replace(factors=8)),
    ):
        with pytest.raises(InputError, match="belongs to another network"):
            other.save()


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"model": "transfernet"}', '{"model": "x", "config": {}}'])
def test_damaged_descriptions_are_told(tmp_path, text):
    _model_dir(tmp_path).save()
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(InputError, match=r"model\.json"):
        read_model_dir(tmp_path)
    with pytest.raises(InputError, match="not a model directory"):
        read_model_dir(tmp_path / "elsewhere")
