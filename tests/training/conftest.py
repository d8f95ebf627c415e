"""A model directory with all four stages, trained once, and the means to run the command again."""

import subprocess
import sys

import pytest
import train_runner
from run_checks import JOINT, REPOSITORY, SMALL


@pytest.fixture
def start(synthetic_records, tmp_path):
    """Starts the command; `--data_dir` and `--model_dir` may be given anew."""

    def starter(*words):
        data, model = f"--data_dir={synthetic_records}", f"--model_dir={tmp_path / 'model'}"
        return train_runner.Run([data, model, *words], tmp_path)

    return starter


@pytest.fixture
def train(start):
    def runner(*words):
        return start(*words).wait()

    return runner


@pytest.fixture(scope="session")
def trained(synthetic_records, tmp_path_factory):
    """A model directory with all four stages, and what each printed."""
    folder = tmp_path_factory.mktemp("trained")
    common = [f"--data_dir={synthetic_records}", f"--model_dir={folder / 'model'}"]
    out = {}
    # The first one as people call it.
    words = [*common, *SMALL, "--stage=encoder", "--encoder_weights=none", "--steps=6", "--summary_every=2"]
    finished = subprocess.run(
        [sys.executable, "-m", "tfseg.train", *words],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert finished.returncode == 0, finished.stderr[-3000:]
    out["encoder"] = finished.stdout
    finetuned = ["--encoder_weights=finetuned", "--steps=4"]
    for stage, own in (
        ("classifier", finetuned),
        ("attention", [*finetuned, "--micro_batch_size=1"]),
        ("joint", JOINT[len(SMALL) :]),
    ):
        run = train_runner.Run([*common, *SMALL, f"--stage={stage}", *own], folder).wait()
        assert run.status == 0, run.err[-3000:]
        out[stage] = run.out
    return folder / "model", out
