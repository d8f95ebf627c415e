"""Two processes by TF_CONFIG, on this machine: they train as one does, and end together."""

import re
import signal

import killable
import pytest
from run_checks import (
    JOINT,
    assert_error,
    assert_same_losses,
    assert_same_weights,
    free_ports,
    read_losses,
    tf_config,
)

from tfseg.errors import WorkerLostError
from tfseg.model_dir import read_model_dir

TOLERANCE = 1e-4


@pytest.fixture
def start_two(synthetic_records, tmp_path):
    """Starts the command twice; worker 1 would write into `elsewhere`. `extra`: its own words."""

    def starter(*words, extra=()):
        jobs = {"worker": [f"localhost:{port}" for port in free_ports(2)]}
        return [
            killable.Run(
                "tfseg.train",
                [f"--data_dir={synthetic_records}", f"--model_dir={tmp_path / model_dir}", *words, *own],
                tmp_path / f"worker{index}",
                tf_config(jobs, index=index),
            )
            for index, (model_dir, own) in enumerate([("model", ()), ("elsewhere", extra)])
        ]

    return starter


def assert_lost(run, who):
    """It ends within a minute after another process was killed, and says in one line which."""
    run.wait(60)
    assert run.status == WorkerLostError.STATUS, run.err[-3000:]
    assert "Traceback" not in run.err
    (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert re.search(rf"lost {who} \(localhost:\d+\), .*start all processes again", line), line


def test_stopped_and_killed_and_started_again_they_are_the_run_of_one(trained, start_two, tmp_path):
    one, _ = trained
    model_dir, log = tmp_path / "model", tmp_path / "model/joint/losses.jsonl"
    words = [*JOINT, f"--init_dir={one}", "--val_split=target_val", "--evaluate_every=40", "--keep_best"]

    def done():
        return len(log.read_text().splitlines()) if log.exists() else 0

    # One is told to stop: both end after the same update, and the chief saves it.
    chief, worker = start_two(*words, "--checkpoint_every=1000")
    worker.kill_when(lambda: done() >= 3, signum=signal.SIGTERM)
    chief.wait()
    assert (chief.status, worker.status) == (143, 143), chief.err[-3000:] + worker.err[-3000:]
    number = int(re.search(r"terminated: saved at update (\d+); ", chief.err)[1])
    assert done() == number < 40
    assert "terminated" in worker.err.splitlines()

    # One is killed: the other notices, and nothing of what is saved is lost.
    chief, worker = start_two(*words, "--checkpoint_every=1")
    worker.kill_when(lambda: done() >= number + 3)
    assert_lost(chief, "worker 1")
    saved = int(read_model_dir(model_dir).newest("joint").rsplit("-", 1)[1])
    assert number < saved < 40

    chief, worker = [run.wait() for run in start_two(*words)]
    assert (chief.status, worker.status) == (0, 0), chief.err[-3000:] + worker.err[-3000:]
    assert f"starts at update {saved} from " in chief.out
    assert worker.out == "" and not (tmp_path / "elsewhere").exists()
    assert read_model_dir(model_dir).require("joint", checkpoint=40)
    assert (model_dir / "joint/best/ckpt-40.index").exists()
    assert_same_losses(read_losses(model_dir), read_losses(one), TOLERANCE)
    assert_same_weights(model_dir, one, TOLERANCE)


def test_processes_with_other_flags_are_refused(trained, start_two, tmp_path):
    words = [*JOINT, f"--init_dir={trained[0]}"]
    for run in start_two(*words, extra=["--learning_rate=0.01"]):
        assert_error(run.wait(60), "worker 1 (localhost:", "has other flags than worker 0 (localhost:")
    assert not (tmp_path / "model/model.json").exists()
