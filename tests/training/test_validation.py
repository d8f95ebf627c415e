"""Validation while training: the figures of `tfseg.evaluate`, and the checkpoint that is best by them."""

import json

import pytest
import tensorflow as tf
from run_checks import JOINT, SMALL, assert_error

from tfseg import evaluate
from tfseg.model_dir import read_model_dir
from tfseg.training.checkpoints import BestCheckpoint

VALIDATED = ["--val_split=target_val", "--evaluate_every=2", "--keep_best"]


def _log(folder):
    return [json.loads(line) for line in (folder / "validation.jsonl").read_text().splitlines()]


def test_joint_is_validated_as_evaluate_does(trained, synthetic_records, train, tmp_path):
    model_dir, _ = trained
    run = train(*JOINT, f"--init_dir={model_dir}", "--steps=4", *VALIDATED, "--evaluate_images=100000")
    assert run.status == 0, run.err[-3000:]
    stage_dir = tmp_path / "model" / "joint"
    log = _log(stage_dir)
    assert [entry["step"] for entry in log] == [2, 4]
    assert "update 4: val_miou" in run.out + run.err
    output = tmp_path / "evaluation"
    status = evaluate.main(
        [f"--model_dir={tmp_path / 'model'}", f"--data_dir={synthetic_records}", "--split=target_val",
         "--labels=ground_truth", f"--output_dir={output}"]
    )  # fmt: skip
    assert status == 0
    expected = json.loads((output / "metrics.json").read_text())["miou"]
    assert log[-1]["miou"] == pytest.approx(expected, abs=1e-6)
    best = json.loads((stage_dir / "best" / "best.json").read_text())
    assert best["value"] == max(entry["miou"] for entry in log)
    assert read_model_dir(tmp_path / "model").require("joint", best["step"]).endswith(f"ckpt-{best['step']}")


@pytest.mark.parametrize("stage, name", [("encoder", "map"), ("attention", "attention_miou")])
def test_other_stages_have_figures_of_their_own(train, tmp_path, stage, name):
    run = train(
        *SMALL, f"--stage={stage}", "--encoder_weights=none", "--steps=2", *VALIDATED, "--evaluate_images=3"
    )
    assert run.status == 0, run.err[-3000:]
    (entry,) = _log(tmp_path / "model" / stage)
    assert next(iter(entry.items())) == ("step", 2) and 0 <= entry[name] <= 1


def test_wrong_wishes_are_refused(train):
    assert_error(train(*JOINT, "--keep_best"), "--val_split")
    assert_error(train(*JOINT, "--val_split=target_train"), "target_train", "trained on")


def test_only_what_is_better_is_kept(tmp_path):
    value = tf.Variable(0.0)
    checkpoint = tf.train.Checkpoint(value=value)
    best = BestCheckpoint(checkpoint, tmp_path)
    for step, figure in ((1, 0.2), (2, 0.5), (3, 0.4), (4, 0.5)):
        value.assign(step)
        best.offer(step, "miou", figure)
    # Another run of the stage knows what is best so far.
    BestCheckpoint(checkpoint, tmp_path).offer(5, "miou", 0.3)
    assert [path.name for path in (tmp_path / "best").glob("*.index")] == ["ckpt-2.index"]
    checkpoint.restore(str(tmp_path / "best" / "ckpt-2"))
    assert float(value) == 2
