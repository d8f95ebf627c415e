"""Which model lies in a folder, with which weights, and the record of its training."""

import hashlib
import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from color_network import LABEL_MAP
from small_networks import TWO_BLOCKS

from tfseg import cli
from tfseg.errors import InputError
from tfseg.model_dir import (
    Export,
    ModelDir,
    append_run,
    find_model,
    read_model_dir,
    read_runs,
    save_model_dir,
    saved_checkpoints,
)
from tfseg.models import build_transfernet
from tfseg.training.options import TrainingOptions


@pytest.fixture
def directory(tmp_path):
    """Checkpoints 0, 9 and 10 of stage joint, each of other weights."""
    directory = ModelDir(tmp_path / "model", "transfernet", TWO_BLOCKS, LABEL_MAP)
    for number in (0, 9, 10):
        keras.utils.set_random_seed(number)
        model = build_transfernet(TWO_BLOCKS)
        if not number:
            save_model_dir(directory, model)
        else:
            checkpoint = tf.train.Checkpoint(model=model)
            manager = tf.train.CheckpointManager(checkpoint, directory.path / "joint", max_to_keep=None)
            manager.save(checkpoint_number=number)
    return directory


def _weights_of(number):
    keras.utils.set_random_seed(number)
    return build_transfernet(TWO_BLOCKS).weights


@pytest.mark.parametrize("listed", [None, "", 'model_checkpoint_path: "ckpt-0"', "model_checkpoint_"])
def test_fingerprint_and_loading_agree_whatever_tensorflows_list_says(directory, listed):
    path = directory.path / "joint/checkpoint"
    path.unlink()
    if listed is not None:
        path.write_text(listed)
    for number, named in ((None, 10), (9, 9), (0, 0)):
        for loaded, expected in zip(directory.load("joint", number).weights, _weights_of(named), strict=True):
            np.testing.assert_array_equal(loaded.numpy(), expected.numpy())
        index = directory.path / f"joint/ckpt-{named}.index"
        fingerprint = directory.fingerprint(checkpoint=number)
        assert fingerprint[f"joint/ckpt-{named}.index"] == hashlib.sha256(index.read_bytes()).hexdigest()
        assert len(fingerprint) == 3  # model.json and labels.json as well.


def test_a_checkpoint_that_is_not_there(directory):
    for ask in (lambda: directory.load("joint", 8), lambda: directory.fingerprint(checkpoint=8)):
        with pytest.raises(InputError, match=r"joint: holds no checkpoint 8; it has 0, 9, 10"):
            ask()
    with pytest.raises(InputError, match=r"attention: holds no checkpoint; run python -m tfseg\.train"):
        directory.require("attention")


def test_files_that_are_no_checkpoints_are_passed_over(directory):
    for name in ("ckpt-x.index", "ckpt-.index", "ckpt-11.index.tmp"):
        (directory.path / "joint" / name).write_bytes(b"")
    assert [path.rsplit("/", 1)[1] for path in saved_checkpoints(directory.path / "joint")] == [
        "ckpt-0",
        "ckpt-9",
        "ckpt-10",
    ]


def test_a_model_directory_is_one_even_with_an_export_in_it(directory, tmp_path):
    for version in ("1", "2"):
        (directory.path / version).mkdir()
        (directory.path / version / "saved_model.pb").write_bytes(b"graph " + version.encode())
    assert find_model(directory.path) == directory == read_model_dir(directory.path)
    assert find_model(directory.path / "1") == Export(directory.path / "1")
    (directory.path / "2").rename(tmp_path / "10")
    (directory.path / "1").rename(tmp_path / "9")
    assert find_model(tmp_path).path.name == "10"
    assert find_model(tmp_path).fingerprint() == {"saved_model.pb": hashlib.sha256(b"graph 2").hexdigest()}
    with pytest.raises(InputError, match=r"holds no model; needed is a model_dir"):
        find_model(tmp_path / "elsewhere")


ARGV = ["--data_dir=d", "--model_dir=m", "--stage=joint"]


def _append(stage_dir, first_update, *changed, **run):
    flags = sorted(cli.flag_lines(cli.parse(TrainingOptions, [*ARGV, *changed])))
    append_run(stage_dir, first_update, flags, {"data": {"source": {"images": 5}}, **run})
    return flags


def test_each_run_of_a_stage_is_recorded_with_its_first_update(tmp_path):
    first = _append(tmp_path, 1, "--resize_to=40", "--learning_rate=0.1")
    second = _append(tmp_path, 101, "--learning_rate=0.01")
    assert [(run["first_update"], run["flags"]) for run in read_runs(tmp_path)] == [(1, first), (101, second)]
    # Resumed as it was: nothing new to tell.
    _append(tmp_path, 150, "--learning_rate=0.01")
    assert [run["first_update"] for run in read_runs(tmp_path)] == [1, 101]
    _append(tmp_path, 200, "--learning_rate=0.01", tensorflow="newer")
    assert [run["first_update"] for run in read_runs(tmp_path)] == [1, 101, 200]
    # Started again from update 120: of the run from 200 on nothing is left.
    third = _append(tmp_path, 121, "--learning_rate=0.5")
    assert [run["first_update"] for run in read_runs(tmp_path)] == [1, 101, 121]

    text = (tmp_path / "flags.cfg").read_text()
    assert text.startswith("# from update 1 on\n# --") and "\n# --batch_size=64\n" in text
    assert "# --learning_rate=0.1\n" in text and "\n--learning_rate=0.5\n" in text
    # As a flagfile it is the newest run's: --resize_to of the first one is gone.
    options = cli.parse(TrainingOptions, [f"--flagfile={tmp_path / 'flags.cfg'}"])
    assert sorted(cli.flag_lines(options)) == third and options.resize_to is None
    assert json.loads((tmp_path / "run.json").read_text())["data"] == {"source": {"images": 5}}


def test_a_record_of_an_older_version_is_kept(tmp_path):
    (tmp_path / "flags.cfg").write_text("--learning_rate=0.1\n")
    (tmp_path / "run.json").write_text(json.dumps({"tensorflow": "2.21.0", "data": {}}))
    assert read_runs(tmp_path) == [
        {"first_update": 1, "flags": ["--learning_rate=0.1"], "tensorflow": "2.21.0", "data": {}}
    ]
    _append(tmp_path, 11)
    assert [run["first_update"] for run in read_runs(tmp_path)] == [1, 11]
    assert read_runs(tmp_path)[0]["tensorflow"] == "2.21.0"


def test_the_record_of_a_model_says_which_updates_ran_under_what(directory):
    assert directory.training_record() == {}
    first = _append(directory.path / "joint", 1)
    record = directory.training_record()
    assert record == {"joint": {"data": {"source": {"images": 5}}, "flags": first}}
    second = _append(directory.path / "joint", 6, "--seg_weight=2")
    record = directory.training_record()["joint"]
    assert record["flags"] == second
    assert [(run["first_update"], run["flags"]) for run in record["runs"]] == [(1, first), (6, second)]


def test_a_folder_in_which_tensorflow_finds_no_checkpoint_is_refused(directory, tmp_path):
    directory.path.rename(tmp_path / "run[1]")
    for read in (find_model, read_model_dir):
        with pytest.raises(InputError, match=r"model directory .*run\[1\]: has \[ \] in .*stay whole"):
            read(tmp_path / "run[1]")
    with pytest.raises(InputError, match="takes for a pattern"):
        ModelDir(tmp_path / "run*", "transfernet", TWO_BLOCKS, LABEL_MAP)
    (tmp_path / "run[1]").rename(directory.path)
    assert directory.newest("joint").endswith("ckpt-10")


@pytest.mark.parametrize(
    "content", ["[" * 100_000, "\xff", "[]", "{}", '{"model": "transfernet"}', '{"config": {}}']
)
def test_a_damaged_model_json_is_named(directory, content):
    (directory.path / "model.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(InputError, match=r"model/model\.json: damaged: "):
        read_model_dir(directory.path)


def test_labels_of_another_network_are_refused(directory):
    labels = LABEL_MAP.to_dict()
    labels["labels"] = labels["labels"][:-1]
    (directory.path / "labels.json").write_text(json.dumps(labels))
    with pytest.raises(InputError, match=r"labels\.json: has 3 labels, the network of model\.json 4"):
        read_model_dir(directory.path)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_are_refused(directory, value):
    model = build_transfernet(TWO_BLOCKS)
    kernel = model.weights[3]
    kernel.assign(np.full(kernel.shape, value))
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=model), directory.path / "joint", None)
    manager.save(checkpoint_number=11)
    with pytest.raises(InputError, match=r"joint/ckpt-11: the weight .* has values that are NaN or infinite"):
        directory.load("joint")
    directory.load("joint", checkpoint=10)


@pytest.mark.parametrize(
    "flag", ["--seed=4294967296", "--subset_seed=-1", "--resize_to=0", "--resize_to=99999999"]
)
def test_numbers_that_end_a_training_in_a_traceback_or_out_of_memory_are_refused(flag):
    with pytest.raises(InputError, match=flag.split("=")[0]):
        cli.parse(TrainingOptions, ["--data_dir=x", "--model_dir=x", "--stage=joint", flag])
