"""A model directory with all four stages, trained once, and the means to run the command again."""

import in_process
import killable
import pytest
from run_checks import JOINT, SMALL

import tfseg.train


@pytest.fixture
def start(synthetic_records, tmp_path):
    """Starts the command; `--data_dir` and `--model_dir` may be given anew."""

    def starter(*words, folder=tmp_path):
        data, model = f"--data_dir={synthetic_records}", f"--model_dir={tmp_path / 'model'}"
        return killable.Run("tfseg.train", [data, model, *words], folder)

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
    finetuned = ["--encoder_weights=finetuned", "--steps=4"]
    out = {}
    for stage, own in (
        ("encoder", ["--encoder_weights=none", "--steps=6", "--summary_every=2"]),
        ("classifier", finetuned),
        ("attention", [*finetuned, "--micro_batch_size=1"]),
        ("joint", JOINT[len(SMALL) :]),
    ):
        run = in_process.call(tfseg.train.main, *common, *SMALL, f"--stage={stage}", *own)
        assert run.returncode == 0, run.stderr[-3000:]
        out[stage] = run.stdout
    return folder / "model", out
