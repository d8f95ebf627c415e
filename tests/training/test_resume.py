"""Kills, damaged checkpoints and losses that are no numbers: what was written stays, and training goes on."""

import shutil

import pytest
from run_checks import JOINT, SMALL, assert_error, assert_same_losses, assert_same_weights, read_losses

from tfseg.model_dir import read_model_dir, read_runs


def _checkpoint_is_listed(stage_dir, number):
    state = stage_dir / "checkpoint"
    return state.exists() and f'model_checkpoint_path: "ckpt-{number}"' in state.read_text()


def test_killed_and_started_again_it_is_the_undisturbed_run(trained, start, tmp_path):
    model_dir, _ = trained
    words = [*JOINT, f"--init_dir={model_dir}"]
    stage_dir = tmp_path / "model/joint"
    first = start(*words).kill_when(lambda: _checkpoint_is_listed(stage_dir, 10))
    assert first.status == -9 and "Traceback" not in first.err
    second = start(*words).kill_when(lambda: _checkpoint_is_listed(stage_dir, 30))
    assert second.status == -9
    third = start(*words).wait()
    assert third.status == 0, third.err
    started = [int(run.out.split("starts at update ")[1].split()[0]) for run in (second, third)]
    assert 10 <= started[0] < 30 <= started[1] < 40
    assert_same_losses(read_losses(tmp_path / "model"), read_losses(model_dir))
    assert_same_weights(tmp_path / "model", model_dir)
    assert len(list(stage_dir.glob("ckpt-*.index"))) == 2  # --keep_checkpoints, kills or not.


def _truncate(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize("damage", ["data", "list"])
def test_killed_while_writing_a_checkpoint(trained, train, tmp_path, damage):
    """What a power cut leaves: half of the newest file, or an empty list. The older one is taken."""
    model_dir, _ = trained
    shutil.copytree(model_dir, tmp_path / "model")
    stage_dir = tmp_path / "model/joint"
    older = {path.name: path.read_bytes() for path in stage_dir.glob("ckpt-30.*")}
    if damage == "data":
        _truncate(next(stage_dir.glob("ckpt-40.data-*")))
    else:
        (stage_dir / "checkpoint").write_text("")
        _truncate(stage_dir / "ckpt-40.index")
    assert {path.name: path.read_bytes() for path in stage_dir.glob("ckpt-30.*")} == older
    run = train(*JOINT)
    assert run.status == 0, run.err
    assert f"{stage_dir / 'ckpt-40'}: passed over, it cannot be read" in run.out
    assert "starts at update 30 from " in run.out
    assert_same_losses(read_losses(tmp_path / "model"), read_losses(model_dir))
    assert_same_weights(tmp_path / "model", model_dir)


def test_no_checkpoint_that_can_be_read(trained, train, tmp_path):
    model_dir, _ = trained
    shutil.copytree(model_dir, tmp_path / "model")
    for path in (tmp_path / "model/joint").glob("ckpt-*.index"):
        _truncate(path)
    assert_error(train(*JOINT), f"{tmp_path / 'model/joint'}: none of its 2 checkpoint(s) can be read")


def test_a_loss_that_is_no_number_stops_the_run(trained, train, tmp_path):
    """Going on from a healthy checkpoint with an absurd rate, which therefore must count."""
    model_dir, _ = trained
    shutil.copytree(model_dir, tmp_path / "model")
    stage_dir = tmp_path / "model/joint"
    words = [*JOINT, "--steps=60", "--checkpoint_every=15"]
    line = assert_error(train(*words, "--learning_rate=1e30"), "at step 4", "Lower --learning_rate")
    assert "the loss is " in line or "not finite" in line
    assert read_model_dir(tmp_path / "model").newest("joint").endswith("ckpt-40")
    assert_same_weights(tmp_path / "model", model_dir)
    # A lower rate mends it, though the checkpoint remembers another.
    assert train(*words, "--learning_rate=0.0005").status == 0
    losses = read_losses(tmp_path / "model")
    assert [entry["step"] for entry in losses] == list(range(1, 61))
    # Each update is credited to the flags it ran under; of the run that failed nothing is in the weights.
    runs = read_runs(stage_dir)
    assert [run["first_update"] for run in runs] == [1, 41]
    assert ["--learning_rate=0.001" in runs[0]["flags"], "--learning_rate=0.0005" in runs[1]["flags"]] == [
        True,
        True,
    ]
    text = (stage_dir / "flags.cfg").read_text()
    assert text.startswith("# from update 1 on\n# --") and "\n# --batch_size=4\n" in text
    assert len(list(stage_dir.glob("ckpt-*.index"))) == 2


def test_weights_that_are_no_numbers_are_not_saved(train, tmp_path):
    """The loss is taken before its update: at the last update nothing else would notice."""
    words = [*SMALL, "--stage=encoder", "--encoder_weights=none", "--steps=1", "--learning_rate=1e39"]
    assert_error(train(*words), "is not finite after step 1", "not saved")
    assert not list((tmp_path / "model/encoder").glob("ckpt-*"))


def test_a_finished_stage_is_left_alone(trained, train, tmp_path):
    model_dir, _ = trained
    before = {path: path.stat().st_mtime_ns for path in (model_dir / "joint").glob("ckpt-*")}
    run = train(f"--model_dir={model_dir}", *JOINT)
    assert run.status == 0
    assert "already trained for 40 updates; nothing to do" in run.out
    assert {path: path.stat().st_mtime_ns for path in (model_dir / "joint").glob("ckpt-*")} == before
