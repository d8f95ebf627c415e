"""Ctrl-C and SIGTERM at any moment of a command: one line, the exit status of shells, no traceback."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tfseg import stopping

REPOSITORY = Path(__file__).resolve().parents[1]
STOPS = [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]


def start(code, *words, ignored=False):
    """Starts Python code, or a module; `ignored` as a shell starts what it runs in the background."""

    def ignore():
        signal.signal(signal.SIGINT, signal.SIG_IGN)

    return subprocess.Popen(
        [sys.executable, *([] if code is None else ["-c", code]), *words],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        preexec_fn=ignore if ignored else None,
    )  # fmt: skip


def command(body):
    return (
        "import dataclasses, os, sys, time, threading\nfrom tfseg import cli, stopping\n"
        "@dataclasses.dataclass\nclass Options: pass\n"
        f"def work(options):\n{body}\n"
        "sys.exit(cli.run('command', 'Works.', Options, work))\n"
    )


@pytest.mark.parametrize(("signum", "status", "word"), STOPS)
def test_a_command_in_the_background_stops_and_clears_up(signum, status, word):
    body = """
    try:
        print('ready', flush=True)
        time.sleep(60)
    except KeyboardInterrupt as stopped:
        stopped.add_note('3 of 7 are done')
        raise
    finally:
        print('cleared up')"""
    process = start(command(body), ignored=True)
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signum)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (status, "cleared up\n", f"{word}: 3 of 7 are done\n")


def test_a_second_signal_ends_at_once_though_the_main_thread_hears_nothing():
    body = """
    with stopping.later('this update') as stop:
        print('ready', flush=True)
        for _ in range(60):
            time.sleep(1)
    stop.check()"""
    process = start(command(body))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    assert process.stderr.readline() == "stopping after this update; a second signal ends at once\n"
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (143, "terminated\n")


def test_a_signal_to_process_and_group_is_one():
    """As `timeout` and cluster managers send it."""
    body = """
    with stopping.later() as stop:
        print('ready', flush=True)
        while stop.signal is None:
            time.sleep(0.01)
        time.sleep(0.3)
        print('saved')
    stop.check()"""
    process = start(command(body))
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (143, "saved\n", "terminated\n")


def test_handlers_are_put_back():
    before = [signal.getsignal(signum) for signum, _, _ in STOPS]
    with stopping.at_once(), stopping.later() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        deadline = time.monotonic() + 60
        while stop.signal is None and time.monotonic() < deadline:
            time.sleep(0.01)
    with pytest.raises(stopping.Stopped, match="interrupted"):
        stop.check()
    assert [signal.getsignal(signum) for signum, _, _ in STOPS] == before
    assert signal.set_wakeup_fd(-1) == -1


TRAIN = ("tfseg.train", "--data_dir=.", "--model_dir={folder}/model", "--stage=joint")


@pytest.mark.parametrize(
    ("words", "imported", "stop"),
    [
        (TRAIN, "absl.flags", 0),
        (TRAIN, "tensorflow.python.framework.ops", 1),
        (("tfrecords.build_voc", "--help"), "tfrecords.pool", 0),
    ],
)
def test_while_a_command_is_imported(words, imported, stop, tmp_path):
    """Python tells of each import when it is done; the signal is sent at one of them."""
    signum, status, word = STOPS[stop]
    process = start(None, "-X", "importtime", "-m", *(word.format(folder=tmp_path) for word in words))
    for line in process.stderr:
        if line.split("|")[-1].strip() == imported:
            break
    else:
        pytest.fail(f"{imported} was not imported")
    process.send_signal(signum)
    _, err = process.communicate(timeout=60)
    said = [line for line in err.splitlines() if not line.startswith(("import time:", "loading "))]
    assert (process.returncode, said) == (status, [word])
