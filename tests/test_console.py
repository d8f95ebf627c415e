"""What commands show: progress in plain lines, real errors, and nothing of TensorFlow's log."""

import dataclasses
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfseg import cli, console
from tfseg.data.records import Split
from tfseg.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]
CHATTER = (
    "WARNING: All log messages before absl::InitializeLog() is called are written to STDERR",
    "I0000 00:00:1795582815.330981    1235 port.cc:153] oneDNN custom operations are on.",
    "I0000 00:00:1795582815.331332    1235 cudart_stub.cc:31] Could not find cuda drivers on your machine.",
    "I1125 05:00:15.331332    1235 generator_dataset_op.cc:213] Memory patch applied",
    "W0000 00:00:1795582987.723712    5951 root_dataset.cc:364] Optimization loop failed: CANCELLED",
    "To enable the following instructions: AVX2 FMA, in other operations, rebuild TensorFlow",
    "E0000 00:00:1795582981.806999 5793 util.cc:131] oneDNN supports DT_UINT8 only on platforms with AVX-512",
)
LOST = (
    "E0000 00:00:1795602780.958146   31248 base_collective_executor.cc:252] "
    "BaseCollectiveExecutor::StartAbort UNAVAILABLE: Error reported from /job:worker/task:1: "
    "The following tasks are unhealthy (stopped sending heartbeats):",
    "/job:worker/replica:0/task:1",
    "The tasks have crashed. Check the task logs for an earlier error, or scheduler events",
    "E0000 00:00:1795602780.958244   31248 ring_alg.cc:291] Aborting RingReduce with UNAVAILABLE",
    "Additional GRPC error information from remote target /job:worker/replica:0/task:0 while calling",
    ':UNKNOWN:Error received from peer  {grpc_message:"recvmsg:Connection reset by peer", grpc_status:14}',
    "The error could be from a previous operation. Restart your program to reset.",
)
NO_GPU = (
    "E0000 00:00:1795582820.709734    1235 cuda_platform.cc:52] failed call to cuInit: INTERNAL: CUDA error"
)
REAL = (
    "E0000 00:00:1795582981.806999    5793 allocator.cc:31] out of memory",
    "F0000 00:00:1795582981.806999    5793 tensor.cc:31] Check failed: ndims == 2",
    "Information on I0000",
)


@dataclasses.dataclass
class NoFlags:
    pass


@pytest.mark.parametrize("has_gpu", [False, True])
def test_chatter_is_dropped_and_errors_are_forwarded(has_gpu):
    lines = [f"{line}\n".encode() for line in (*CHATTER, *LOST, NO_GPU, *REAL)]
    to = io.BytesIO()
    console.forward([*lines, console._END, b"of the next\n"], to, has_gpu)
    assert to.getvalue().decode().splitlines() == [*([NO_GPU] if has_gpu else []), *REAL]


def _as_a_command(code, *flags):
    script = (
        "import dataclasses, os, sys\nfrom tfseg import cli\n"
        "@dataclasses.dataclass\nclass Options: pass\n"
        f"def work(options):\n    {code}\n"
        "sys.exit(cli.run('command', 'Works.', Options, work))\n"
    )
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", script, *flags],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_last_words_of_a_process_that_aborts_are_shown():
    done = _as_a_command(f"os.write(2, {CHATTER[1] + chr(10) + REAL[1] + chr(10)!r}.encode()); os.abort()")
    assert done.returncode < 0
    assert done.stderr.splitlines() == [REAL[1]]


def test_verbose_shows_all():
    done = _as_a_command(f"os.write(2, {CHATTER[1] + chr(10)!r}.encode())", "--verbose")
    assert (done.returncode, done.stderr) == (0, CHATTER[1] + "\n")


def test_a_training_as_a_person_starts_it_shows_its_own_lines_only(synthetic_records, tmp_path):
    words = [f"--data_dir={synthetic_records}", f"--model_dir={tmp_path / 'model'}", "--stage=attention"]
    words += ["--preset=tiny", "--image_size=32", "--encoder_weights=none", "--steps=2", "--batch_size=4"]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-m", "tfseg.train", *words],
        cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "Compiling: the first update takes longer." in done.stdout
    # Lines with dots say what takes over two seconds.
    said = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert all(line.startswith("attention: ") and "/2 [" in line for line in said)
    assert not re.search(r"\b[IWE]\d{4} |INFO|WARNING", done.stdout)


def test_without_a_terminal_progress_is_plain_lines_and_not_one_an_image(capsys):
    with cli.progress_bar("predict", "image", 500) as bar:
        now = [bar.start_t]
        bar._time = lambda: now[0]
        for number in range(500):
            now[0] += 0.1
            bar.update()
            if number == 20:
                bar.write("error: bad.jpg", file=sys.stderr)
    lines = capsys.readouterr().err.splitlines()
    assert "error: bad.jpg" in lines
    assert 3 <= len(lines) <= 8
    assert "500/500" in lines[-1]


def test_without_a_terminal_a_quick_step_shows_nothing(capsys):
    with cli.progress_bar("predict", "image", 2) as bar:
        bar.update(2)
    assert capsys.readouterr().err == ""


def test_a_step_that_takes_long_is_told(capsys, monkeypatch):
    timers = []

    class Timer:
        def __init__(self, seconds, function):
            self.seconds, self.function, self.runs = seconds, function, False
            timers.append(self)

        def start(self):
            self.runs = True

        def cancel(self):
            self.runs = False

    monkeypatch.setattr(cli.threading, "Timer", Timer)
    with pytest.raises(InputError), cli.working("loading the model"):
        (timer,) = timers
        assert timer.runs and timer.seconds <= 2
        timer.function()
        raise InputError("no model")
    assert capsys.readouterr().err == "loading the model ...\n"
    assert not timer.runs  # A quick step says nothing.


def test_a_missing_folder_and_a_missing_flagfile_are_named_as_such(tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path}/none: there is no such folder$"):
        Split.load(tmp_path / "none", "train")
    with pytest.raises(InputError, match=r"^Unable to open flagfile"):
        cli.parse(NoFlags, [f"--flagfile={tmp_path}/none.cfg"])
