"""The commands of docs/own_data.md, as they stand there, but with few images and updates."""

import importlib.util
import json
import os
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from in_process import call
from PIL import Image

from tfseg import cli
from tfseg.page import PageOptions

REPOSITORY = Path(__file__).resolve().parents[1]
SHORT = {
    "tfrecords.build_synthetic": [
        "--source_train=24",
        "--target_train=60",
        "--target_test=12",
        "--workers=1",
    ],
    "tfrecords.build_folder": ["--workers=1"],
    "tfrecords.verify": ["--workers=1"],
    "tfseg.train": ["--steps=2", "--batch_size=4", "--checkpoint_every=2", "--evaluate_every=2"],
}
"""Flags added to each command; of a flag that stands twice the last counts."""


def commands(page):
    """Yields the lines of a page's `sh` blocks: (module, words), with $NAME as its blocks set it."""
    values = {}
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.fullmatch(r"([A-Z]+)=(\S+)", line):
                values[match[1]] = match[2]
                continue
            python, dash_m, module, *words = shlex.split(re.sub(r"\$(\w+)", lambda m: values[m[1]], line))
            assert (python, dash_m) == ("python", "-m"), line
            yield module, words


@pytest.mark.skipif("TFSEG_OWN_DATA" not in os.environ, reason="takes minutes; make test-own-data runs it")
def test_the_page_is_followed_line_by_line(tmp_path, monkeypatch):
    page = (REPOSITORY / "docs/own_data.md").read_text()
    (tmp_path / "configs").symlink_to(REPOSITORY / "configs")
    monkeypatch.chdir(tmp_path)
    ran = []
    for module, words in commands(page):
        ran.append(module)
        if module == "tfseg.page":  # It serves until Ctrl-C; tests/web has the rest.
            assert cli.parse(PageOptions, words).model_dir == "own/model"
            continue
        given = [*words[:-1], *SHORT.get(module, []), words[-1]]
        done = call(importlib.import_module(module).main, *given)
        assert done.returncode == 0, (module, words, done.stderr[-2000:])
    assert ran[0] == "tfrecords.build_synthetic" and ran.count("tfseg.train") == 4
    assert {"tfrecords.verify", "tfseg.predict", "tfseg.evaluate", "export.saved_model", "export.verify"} <= {
        *ran
    }
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
    for module, words in commands(text):
        assert importlib.util.find_spec(module) and words
