"""How commands end: one line for what a person can mend, a traceback for our own defects."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
COMMAND = """
import time
from absl import flags
from tfseg import cli
from tfseg.errors import InputError

COUNT = flags.DEFINE_integer("count", 1, "How often.")
NEEDED = flags.DEFINE_string("needed", None, "Must be given.", required=True)

def main(argv):
    match NEEDED.value:
        case "input":
            raise InputError("file.json: record 3:\\n  is bad")
        case "file":
            open("/nonexistent/file.txt")
        case "defect":
            raise RuntimeError("our own")
        case "sleep":
            print("ready", flush=True)
            time.sleep(60)
        case "status":
            return COUNT.value
        case _:
            print("ran", *argv[1:])

if __name__ == "__main__":
    cli.run(main, max_words=MAX_WORDS)
"""


@pytest.fixture
def start(tmp_path):
    def starter(*arguments, max_words=0):
        path = tmp_path / "command.py"
        path.write_text(COMMAND.replace("MAX_WORDS", str(max_words)))
        return subprocess.Popen(
            [sys.executable, path, *arguments],
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return starter


@pytest.fixture
def run(start):
    def runner(*arguments, **options):
        process = start(*arguments, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err

    return runner


def test_a_good_call(run):
    assert run("--needed=x") == (0, "ran\n", "")
    assert run("--needed=x", "word", max_words=1) == (0, "ran word\n", "")
    assert run("--needed=status", "--count=7")[0] == 7


def test_flags_from_a_file(run, tmp_path):
    (tmp_path / "flags.cfg").write_text("# why\n--needed=status\n--count=4\n")
    assert run(f"--flagfile={tmp_path / 'flags.cfg'}")[0] == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--needed=x", "--cuont=2"], "Unknown command line flag 'cuont'. Did you mean: count ?"),
        (["--needed=x", "--count=two"], "flag --count=two"),
        (["--count=2"], "--needed must have a value"),
        (["--flagfile=/nonexistent/flags.cfg"], "/nonexistent/flags.cfg"),
        (["--needed=x", "one", "two"], "left-over words on the command line: 'one', 'two'"),
        (["--needed=input"], "file.json: record 3: is bad"),
        (["--needed=file"], "No such file or directory: /nonexistent/file.txt"),
    ],
)
def test_what_a_person_can_mend_is_one_line(run, arguments, message):
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err


def test_left_over_words_behind_those_that_are_allowed(run):
    status, _, err = run("--needed=x", "one", "two", max_words=1)
    assert status == 2 and "'two'" in err and "'one'" not in err


def test_our_own_defects_keep_their_traceback(run):
    status, _, err = run("--needed=defect")
    assert status == 1
    assert "Traceback" in err and "our own" in err


def test_ctrl_c_ends_in_one_line(start):
    process = start("--needed=sleep")
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "interrupted"


def test_help_lists_the_flags(run):
    status, out, _ = run("--help")
    assert "--count: How often." in out
    assert status == 1  # absl's own convention
