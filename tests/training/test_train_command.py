"""The command from end to end: all stages, what they write, and what a person is told."""

import json
import os
import platform
import shutil

import numpy as np
import pytest
import tensorflow as tf
from run_checks import (
    JOINT,
    SMALL,
    assert_error,
    assert_same_losses,
    read_losses,
)

from tfseg.data.records import HEADER_BYTES, Split, parse
from tfseg.model_dir import load_classifier, load_model, read_model_dir


def _scalars(stage_dir):
    found = {}
    for path in stage_dir.glob("events.*"):
        for event in tf.compat.v1.train.summary_iterator(str(path)):
            for value in event.summary.value:
                found.setdefault(value.tag, []).append(event.step)
    return found


def test_all_stages_run(trained):
    model_dir, out = trained
    steps = {"encoder": 6, "classifier": 4, "attention": 4, "joint": 40}
    for stage, count in steps.items():
        losses = read_losses(model_dir, stage)
        assert [entry["step"] for entry in losses] == list(range(1, count + 1))
        assert all(np.isfinite(list(entry.values())).all() for entry in losses)
        assert f"{stage}: starts at update 0 from " in out[stage]
        assert read_model_dir(model_dir).newest(stage).endswith(f"ckpt-{count}")
    assert set(losses[0]) == {"step", "loss", "cls_loss", "cls_accuracy", "seg_loss"}
    assert np.mean([x["loss"] for x in losses[-8:]]) < np.mean([x["loss"] for x in losses[:8]])
    for stage in ("classifier", "attention"):
        assert out[stage].split("from ")[1].startswith(str(model_dir / "encoder/ckpt-6"))
    assert out["joint"].split("from ")[1].startswith(str(model_dir / "attention/ckpt-4"))
    logits = load_classifier(model_dir).output["class_logits"]
    assert read_model_dir(model_dir).config.num_labels == logits.shape[1]


def test_the_frozen_encoder_is_that_of_stage_encoder(trained):
    model_dir, _ = trained
    directory = read_model_dir(model_dir)
    encoder = directory.load("encoder").get_layer("encoder").get_weights()
    for stage in ("attention", "joint"):
        for left, right in zip(
            directory.load(stage).get_layer("encoder").get_weights(), encoder, strict=True
        ):
            np.testing.assert_array_equal(left, right)
    classifier = directory.load("classifier").get_layer("encoder").get_weights()
    assert any((left != right).any() for left, right in zip(classifier, encoder, strict=True))


def test_curves_and_pictures(trained):
    model_dir, _ = trained
    encoder = _scalars(model_dir / "encoder")
    assert encoder["loss"] == encoder["label_accuracy"] == encoder["images_per_second"] == [2, 4, 6]
    joint = _scalars(model_dir / "joint")
    assert joint["seg_loss"] == [20, 40]
    assert {tag.split("/")[0] for tag in joint} >= {"source", "target"}


def test_what_it_ran_on_is_written_down(trained, synthetic_records):
    model_dir, _ = trained
    run = json.loads((model_dir / "joint/run.json").read_text())
    versions = {name: run[name] for name in ("python", "tensorflow", "numpy")}
    assert versions == {
        "python": platform.python_version(),
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
    }
    assert run["parameters"] == load_model(model_dir).count_params()
    assert len(run["devices"]) == 1 and "CPU" in run["devices"][0]
    for domain, masks in (("source", True), ("target", False)):
        split = Split.load(synthetic_records, f"{domain}_train")
        data = run["data"][domain]
        assert data["split"] == split.name and data["sha256"] == split.summary["sha256"]
        assert data["images"] == len(split) and data["pairs"] == len(split.pairs)
        assert data["masks"] == (len(split) if masks else 0)


def test_flags_file_gives_the_same_run_again(trained, train, tmp_path):
    model_dir, _ = trained
    cfg = model_dir / "joint/flags.cfg"
    text = cfg.read_text()
    assert "--stage=joint\n" in text and "--seed=3\n" in text and "--mirror\n" in text
    again = train(
        f"--flagfile={cfg}", f"--model_dir={tmp_path / 'again'}", f"--init_dir={model_dir}", "--steps=6"
    )
    assert again.status == 0, again.err
    assert_same_losses(read_losses(tmp_path / "again"), read_losses(model_dir)[:6])
    changed = {"--model_dir", "--init_dir", "--steps"}

    def kept(path):
        return [line for line in path.read_text().splitlines() if line.split("=")[0] not in changed]

    assert kept(tmp_path / "again/joint/flags.cfg") == kept(cfg)


def test_two_devices_give_the_losses_of_one(trained, train, tmp_path):
    model_dir, _ = trained
    run = train(*JOINT, f"--init_dir={model_dir}", "--steps=5", "--cpu_devices=2")
    assert run.status == 0, run.err
    for left, right in zip(read_losses(tmp_path / "model"), read_losses(model_dir)[:5], strict=True):
        assert left == pytest.approx(right, abs=1e-4)
    assert len(json.loads((tmp_path / "model/joint/run.json").read_text())["devices"]) == 2


@pytest.mark.parametrize("model", ["baselinenet", "decouplednet"])
def test_baselines_train_by_choosing_them(trained, train, tmp_path, model):
    """Their encoder and classification head come from the shared stage `encoder`."""
    model_dir, _ = trained
    own = tmp_path / "model"
    run = train(
        *SMALL,
        f"--model={model}",
        "--stage=attention",
        "--encoder_weights=finetuned",
        f"--init_dir={model_dir}",
        "--steps=2",
    )
    assert run.status == 0, run.err
    run = train(*SMALL, f"--model={model}", "--stage=joint", "--steps=3", "--dtype_policy=float32")
    assert run.status == 0, run.err
    assert len(read_losses(own)) == 3
    network = load_model(own)
    assert network.name == model
    source = read_model_dir(model_dir).load("encoder")
    for left, right in zip(
        network.get_layer("encoder").get_weights(), source.get_layer("encoder").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(left, right)


def test_fractions_and_target_masks_are_recorded(trained, train, synthetic_records, tmp_path):
    model_dir, _ = trained
    run = train(
        *JOINT, f"--init_dir={model_dir}", "--steps=2", "--source_fraction=0.25", "--subset_seed=5",
        "--target_masks=3",
    )  # fmt: skip
    assert run.status == 0, run.err
    data = json.loads((tmp_path / "model/joint/run.json").read_text())["data"]
    images = len(Split.load(synthetic_records, "source_train"))
    assert data["source"]["images"] == data["source"]["masks"] == round(images / 4)
    assert data["target"]["masks"] == 3


STAGE_ONE = [*SMALL, "--stage=attention", "--encoder_weights=none", "--steps=2"]


@pytest.mark.parametrize(
    ("words", "messages"),
    [
        (["--baych_size=4"], ["Unknown command line flag 'baych_size'", "batch_size"]),
        (["4"], ["left-over words", "'4'"]),
        (["--stage=jiont"], ["--stage=jiont", "encoder|classifier|attention|joint"]),
        (["--data_dir=/nonexistent"], ["--data_dir=/nonexistent: there is no such folder"]),
        (["--source_split=sauce"], ["sauce.json", "source_train, target_train, target_val"]),
        (["--source_split=target_train"], ["--source_split=target_train: was built as target records"]),
        (["--target_split=source_train"], ["--target_split=source_train: was built as source records"]),
        (["--source_split=", "--target_split="], ["nothing to train on"]),
        (["--stage=joint", "--source_split="], ["--stage=joint", "--source_split"]),
        (["--stage=joint"], ["model/attention: holds no checkpoint", "--stage=attention"]),
        (["--encoder_weights=finetuned"], ["model/encoder: holds no checkpoint", "--stage=encoder"]),
        (["--stage=encoder", "--encoder_weights=finetuned"], ["stage encoder is the one that finetunes"]),
        (["--encoder_weights=imagenet"], ["encoder_weights=imagenet", "official encoder only"]),
        (["--init_dir=/nonexistent"], ["--init_dir=/nonexistent: there is no such folder"]),
        (["--batch_size=5"], ["batch_size=5"]),
        (["--micro_batch_size=3"], ["micro_batch_size=3"]),
        (["--image_size=33"], ["image_size=33", "multiple of 8"]),
        (["--resize_to=20"], ["resize_to=20", "32"]),
        (["--source_fraction=0"], ["fraction 0.0", "above 0"]),
        (["--target_masks=99"], ["99 masks asked for"]),
        (
            ["--cpu_devices=2", "--dtype_policy=mixed_float16"],
            ["mixed_float16: trains on one device"],
        ),
        (["--steps=0"], ["--steps=0"]),
    ],
    ids=lambda value: value[0].lstrip("-") if isinstance(value[0], str) else None,
)
def test_what_a_person_can_mend_is_one_line(train, words, messages):
    assert_error(train(*STAGE_ONE, *words), *messages)


def test_a_directory_keeps_its_network(trained, train):
    model_dir, _ = trained
    own = f"--model_dir={model_dir}"
    for change in ("--gating=concat", "--model=baselinenet", "--image_size=64"):
        assert_error(train(own, *JOINT, change), f"{model_dir}/model.json", "belongs to another network")


def test_earlier_stages_must_be_of_the_same_network(trained, train, tmp_path):
    model_dir, _ = trained
    words = [*SMALL, "--stage=joint", "--steps=2", f"--init_dir={model_dir}"]
    assert_error(train(*words, "--image_size=64"), f"{model_dir}/model.json", "--init_dir")
    other = [*words, "--model=baselinenet", f"--model_dir={tmp_path / 'other'}"]
    assert_error(train(*other), f"{model_dir}/attention/ckpt-4", "cannot be loaded into baselinenet")


def test_earlier_stages_must_be_of_the_same_labels(trained, train, tmp_path):
    model_dir, _ = trained
    shutil.copytree(model_dir, tmp_path / "earlier")
    labels = json.loads((model_dir / "labels.json").read_text())
    first, second = labels["labels"][:2]
    first["name"], second["name"] = second["name"], first["name"]
    (tmp_path / "earlier/labels.json").write_text(json.dumps(labels))
    words = [*SMALL, "--stage=joint", "--steps=2", f"--init_dir={tmp_path / 'earlier'}"]
    assert_error(train(*words), f"{tmp_path / 'earlier'}/labels.json", "--init_dir")


@pytest.mark.parametrize("first_batch", [True, False])
def test_a_damaged_record_is_named(synthetic_records, train, tmp_path, first_batch):
    data_dir = tmp_path / "records"
    shutil.copytree(synthetic_records, data_dir)
    split = Split.load(data_dir, "source_train")
    damaged = range(len(split)) if first_batch else [11]
    for index in damaged:
        info = split.infos[index]
        path = data_dir / split.shards[info.shard]
        image = parse(tf.constant(split.read(index)))["image"].numpy()
        data = bytearray(path.read_bytes())
        at = data.index(image, info.offset + HEADER_BYTES)
        data[at : at + len(image)] = os.urandom(len(image))
        path.write_bytes(data)
    run = train(*STAGE_ONE, "--steps=30", f"--data_dir={data_dir}")
    line = assert_error(run, "its checksum is wrong", f"tfrecords.verify {data_dir}")
    if not first_batch:
        info = split.infos[11]
        assert f"{data_dir / split.shards[info.shard]}: record 11 " in line and info.image_id in line
