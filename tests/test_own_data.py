"""The commands of docs/own_data.md, as they stand there, but with few images and updates."""

import importlib
import json
import os
import re
import shlex
import subprocess
from pathlib import Path

import numpy as np
import pytest
from in_process import call
from PIL import Image

from tfseg import cli
from tfseg.commands import COMMANDS, find
from tfseg.page import PageOptions
from tfseg.shipped import locate

REPOSITORY = Path(__file__).resolve().parents[1]
SHORT = {
    "build synthetic": [
        "--source_train=24",
        "--target_train=60",
        "--target_test=12",
        "--workers=1",
    ],
    "build folder": ["--workers=1"],
    "verify": ["--workers=1"],
    "adapt": ["--steps=2", "--classifier_steps=2", "--batch_size=4"],
    "train": ["--steps=2", "--batch_size=4", "--checkpoint_every=2", "--evaluate_every=2"],
}
"""Flags added to each command; of a flag that stands twice the last counts."""


def commands(page):
    """Yields the lines of a page's `sh` blocks: (command, words), with $NAME as its blocks set it."""
    values = {}
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.fullmatch(r"([A-Z]+)=(\S+)", line):
                values[match[1]] = match[2]
                continue
            tfseg, *words = shlex.split(re.sub(r"\$(\w+)", lambda m: values[m[1]], line))
            assert tfseg == "tfseg", line
            name, rest = find(words)
            yield name, rest


def run(name, *words):
    """Runs a command in this process, or by the console script that TFSEG_OWN_DATA names."""
    script = os.environ["TFSEG_OWN_DATA"]
    if script == "1":
        return call(importlib.import_module(COMMANDS[name]).main, *words)
    line = [script, *name.split(), *words]
    return subprocess.run(line, capture_output=True, text=True, timeout=600, check=False)


@pytest.mark.skipif("TFSEG_OWN_DATA" not in os.environ, reason="takes minutes; make test-own-data runs it")
def test_the_page_is_followed_line_by_line(tmp_path, monkeypatch):
    page = (REPOSITORY / "docs/own_data.md").read_text()
    monkeypatch.chdir(tmp_path)
    ran = []
    for name, words in commands(page):
        ran.append(name)
        if name == "page":  # It serves until Ctrl-C; tests/web has the rest.
            assert cli.parse(PageOptions, words).model_dir == "own/model"
            continue
        done = run(name, *words[:-1], *SHORT.get(name, []), words[-1])
        assert done.returncode == 0, (name, words, done.stderr[-2000:])
    assert ran[0] == "build synthetic" and ran.count("train") == 4
    assert {"verify", "predict", "evaluate", "export", "verify-export"} <= {*ran}
    names = {path.stem for path in Path("drawn/folders/test/images").iterdir()}
    assert {path.stem for path in Path("own/predicted/masks").iterdir()} == names
    labels = {one["id"]: one["domain"] for one in json.loads(Path("own/labels.json").read_text())["labels"]}
    for path in Path("own/predicted/masks").iterdir():
        found = set(np.unique(np.asarray(Image.open(path)))) - {0}
        assert all(labels[int(label)] == "target" for label in found)
    for name in ("target_test-predicted-none", "target_test-ground_truth-attention"):
        metrics = json.loads(Path(f"own/model/evaluation/{name}/metrics.json").read_text())
        assert metrics["images"] == len(names)


def test_what_the_page_names_is_there():
    text = (REPOSITORY / "docs/own_data.md").read_text()
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (REPOSITORY / "docs" / target).exists(), target
    for name in re.findall(r"configs/[\w/.]*\w", text):
        assert (REPOSITORY / name).exists(), name
    for name in re.findall(r"tfseg:[\w/.]*\w", text):
        assert locate(name)
    assert all(words for _, words in commands(text))
