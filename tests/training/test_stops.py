"""Ctrl-C and SIGTERM end a training saved, after the update that is under way; the same command goes on."""

import json
import re
import shutil
import signal

import pytest
from run_checks import JOINT, SMALL, assert_same_losses, assert_same_weights, read_losses

from tfseg.model_dir import read_model_dir

STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143}
WORD = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}


def stopped_at(run, signum):
    """The update at which a run says that it was saved; it says nothing else at its end."""
    assert run.status == STATUS[signum], run.err[-3000:]
    assert "Traceback" not in run.err
    said = re.fullmatch(
        rf"{WORD[signum]}: saved at update (\d+); the same command goes on", run.err.splitlines()[-1]
    )
    assert said, run.err[-3000:]
    return int(said[1])


def test_stopped_twice_and_started_again_it_is_the_undisturbed_run(trained, start, tmp_path):
    """Checkpoints are far apart here: what is saved is saved by the stop."""
    model_dir, _ = trained
    words = [*JOINT, "--checkpoint_every=1000", f"--init_dir={model_dir}"]
    last, log = 0, tmp_path / "model/joint/losses.jsonl"

    def is_under_way():
        return log.exists() and len(log.read_text().splitlines()) >= last + 3

    for signum in (signal.SIGTERM, signal.SIGINT):
        run = start(*words).kill_when(is_under_way, signum=signum)
        number = stopped_at(run, signum)
        assert last < number < 40
        assert read_model_dir(tmp_path / "model").newest("joint").endswith(f"/ckpt-{number}")
        assert [entry["step"] for entry in read_losses(tmp_path / "model")] == list(range(1, number + 1))
        last = number
    run = start(*words).wait()
    assert run.status == 0, run.err
    assert f"starts at update {last} from " in run.out
    assert_same_losses(read_losses(tmp_path / "model"), read_losses(model_dir))
    assert_same_weights(tmp_path / "model", model_dir)


def test_a_validation_is_not_waited_for(trained, start, tmp_path):
    """A signal while figures are measured: the update before them is saved, though no checkpoint is due."""
    model_dir, _ = trained
    shutil.copytree(model_dir, tmp_path / "model")
    words = [*JOINT, "--steps=60", "--checkpoint_every=1000", "--val_split=target_val", "--evaluate_every=1"]
    log = tmp_path / "model/joint/losses.jsonl"
    run = start(*words).kill_when(lambda: len(log.read_text().splitlines()) >= 42, signum=signal.SIGINT)
    number = stopped_at(run, signal.SIGINT)
    assert read_model_dir(tmp_path / "model").newest("joint").endswith(f"/ckpt-{number}")


def test_figures_that_a_stop_kept_from_being_measured_are_made_up(train, tmp_path):
    """The last validation of a stage comes after its last update is saved."""
    words = [*SMALL, "--stage=attention", "--encoder_weights=none", "--steps=2", "--val_split=target_val"]
    log = tmp_path / "model/attention/validation.jsonl"
    assert train(*words).status == 0
    whole = log.read_text()
    assert json.loads(whole)["step"] == 2
    log.write_text("")
    run = train(*words)
    assert run.status == 0 and "starts at update 2 from " in run.out, run.err
    assert json.loads(log.read_text()) == pytest.approx(json.loads(whole), abs=1e-6)
    run = train(*words)
    assert run.status == 0 and "nothing to do" in run.out
    assert len(read_losses(tmp_path / "model", "attention")) == 2


def test_a_stage_ends_with_one_line(trained, synthetic_records):
    """Where it lies, how long it took, the last losses, what comes next."""
    model_dir, out = trained
    own = f"--model_dir={model_dir} --data_dir={synthetic_records}"
    following = {
        "encoder": "--stage=attention --encoder_weights=finetuned, with these flags or its recipe",
        "classifier": f"python -m tfseg.evaluate {own} --method=labels",
        "attention": "--stage=joint, with these flags or its recipe",
        "joint": f"python -m tfseg.evaluate {own}",
    }
    for stage, command in following.items():
        last = read_losses(model_dir, stage)[-20:]
        mean = sum(entry["loss"] for entry in last) / len(last)
        line = out[stage].splitlines()[-1]
        assert re.match(rf"{model_dir}/{stage}: saved after \d+ s; loss {mean:.4f}[,. ]", line), line
        assert line.endswith(f"(mean of the last {len(last)} updates); next: {command}")
