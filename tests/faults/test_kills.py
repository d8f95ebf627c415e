"""Killed at random moments: nothing is half there, and the same command then ends with the same bytes."""

import json
import random

import pytest
from commands import COMMANDS
from fault_counts import COUNTS, SCALE
from killable import Run
from PIL import Image

from export import manifest
from tfseg.data.records import Split, finished_splits

KILLS = 1 if SCALE == 1 else 5
"""Of each command."""
NAMES = [name for name, command in COMMANDS.items() if SCALE > 1 or not command.is_slow]


@pytest.fixture(scope="module")
def undisturbed(world, tmp_path_factory):
    """What each command writes, and how long it takes; run once each."""
    known = {}

    def run(name):
        if name not in known:
            folder, command = tmp_path_factory.mktemp(name), COMMANDS[name]
            command.prepare(world, folder / "out")
            done = Run(command.module, command.words(world, folder / "out"), folder).wait()
            assert done.status == 0, done.err[-3000:]
            known[name] = command.content(folder / "out"), done.seconds
        return known[name]

    return run


def refuse_half_states(out):
    """What stands under its own name is whole: splits, images, JSON, versions of an export."""
    if not out.is_dir():
        return
    for split in finished_splits(out):
        Split.load(out, split)
    for path in out.rglob("*"):
        hidden = any(part.startswith(".") for part in path.relative_to(out).parts)
        if path.suffix == ".json" and not hidden:
            json.loads(path.read_bytes())
        elif path.suffix in (".png", ".jpg") and not hidden:
            with Image.open(path) as image:
                image.load()
        elif path.name == "saved_model.pb" and not hidden:
            manifest.check(path.parent)


@pytest.mark.parametrize("number", range(KILLS))
@pytest.mark.parametrize("name", NAMES)
def test_killed_it_leaves_nothing_half_and_goes_on_to_the_same(world, undisturbed, tmp_path, name, number):
    expected, seconds = undisturbed(name)
    command, rng, out = COMMANDS[name], random.Random(f"{name} {number}"), tmp_path / "out"
    command.prepare(world, out)
    words = command.words(world, out)
    for _ in range(rng.randrange(1, 3)):
        run = Run(command.module, words, tmp_path).kill_after(rng.uniform(0.05, 1.0) * seconds)
        assert run.status in (-9, 0), run.err[-3000:]
        COUNTS["kills" if run.status else "runs that ended before they were killed"] += 1
        refuse_half_states(out)
    if name == "export" and (out / "1").exists():  # A version that is there is not written again.
        assert command.content(out) == expected
        return
    run = Run(command.module, words, tmp_path).wait()
    assert run.status == 0, run.err[-3000:]
    assert command.content(out) == expected
