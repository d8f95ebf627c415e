"""Short names of commands, and names of files that ship."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tfrecords.build_coco import CocoOptions
from tfseg import cli, commands
from tfseg.__main__ import main
from tfseg.errors import InputError
from tfseg.shipped import locate

REPOSITORY = Path(__file__).resolve().parents[1]


def test_every_command_has_a_short_name():
    ran = {
        match[1]
        for package in ("tfseg", "tfrecords", "export")
        for path in (REPOSITORY / package).rglob("*.py")
        for match in re.finditer(r'^    return cli\.run\("([\w.]+)"', path.read_text(), re.MULTILINE)
    }
    assert len(ran) > 15
    assert set(commands.COMMANDS.values()) == ran | {"export.client"}  # It is a file for other machines.


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["train", "--steps=2"], ("train", ["--steps=2"])),
        (["build", "folder", "x"], ("build folder", ["x"])),
        (["serve_files"], ("serve-files", [])),
        (["build"], None),
        (["--help"], None),
        ([], None),
    ],
)
def test_a_line_is_cut_behind_the_name(words, found):
    assert commands.find(words) == found


@pytest.mark.parametrize(
    ("words", "status", "out", "err"),
    [
        ([], 0, "build synthetic", ""),
        (["--help"], 0, "  small/tiny, ", ""),
        (["--version"], 0, "tfseg 0.1.0", ""),
        (["build"], 0, "build voc", ""),
        (["build", "vco"], 2, "", "no command 'build vco'; did you mean build voc?"),
        (["trian", "--steps=2"], 2, "", "no command 'trian'; did you mean train?"),
        (["qqqq"], 2, "", "no command 'qqqq' (tfseg --help lists them)"),
        (["verify", "--no_such=1"], 2, "", "Unknown command line flag 'no_such'"),
    ],
)
def test_calls(capsys, words, status, out, err):
    assert main(words) == status
    said = capsys.readouterr()
    assert out in said.out and err in said.err


@pytest.mark.parametrize("words", [["--help"], ["train", "--help"]])
def test_help_whose_reader_has_seen_enough(words):
    process = subprocess.Popen(
        [sys.executable, "-m", "tfseg", *words],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    process.stdout.close()
    assert (process.stderr.read(), process.wait(60)) == ("", 0)
    process.stderr.close()


def test_the_repository_calls_commands_by_their_modules():
    assert commands.called("export.saved_model") == "python -m export.saved_model"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfseg:official/joitn.cfg", "did you mean tfseg:official/joint.cfg?"),
        ("tfseg:../README.md", "does not ship"),
        ("tfseg:", "what ships is in demo, "),
    ],
)
def test_a_name_that_does_not_ship(name, message):
    with pytest.raises(InputError, match=re.escape(message)):
        locate(name)
    with pytest.raises(InputError, match=re.escape(message)):
        cli.parse(CocoOptions, [f"--flagfile={name}"])


def test_a_flag_that_names_a_file_takes_one_that_ships():
    words = ["--annotations=a", "--images=.", "--split=s", "--output_dir=o"]
    options = cli.parse(CocoOptions, [*words, "--label_map=tfseg:labels/voc20_coco60.json"])
    assert options.label_map == str(REPOSITORY / "configs/labels/voc20_coco60.json")
