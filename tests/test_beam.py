"""The flags of Apache Beam, without it; tests/export/consumers runs commands on it."""

import sys

import pytest

from tfseg.beam import run_tasks, runner_flags
from tfseg.errors import InputError


def test_words_after_the_flags_are_the_runners():
    assert runner_flags("", []) == ()
    assert runner_flags("FlinkRunner", ["--parallelism=8"]) == ("--runner=FlinkRunner", "--parallelism=8")
    for runner, words in (("", ["--parallelism=8"]), ("FlinkRunner", ["records"]), ("", ["records"])):
        with pytest.raises(InputError, match=f"left-over words on the command line: {words[0]}; words after"):
            runner_flags(runner, words)


def test_without_beam_what_to_install_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    with pytest.raises(InputError, match=r"pip install 'tfseg\[beam\]'"):
        list(run_tasks(len, [()], ["--runner=DirectRunner"], tmp_path))
