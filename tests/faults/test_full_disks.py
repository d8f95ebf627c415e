"""A full disk, a read-only folder: one line, status 2, nothing half; with room again the command ends well.

File systems are mounted for it, which needs root.
"""

import random

import pytest
from commands import COMMANDS, files_of
from fault_counts import COUNTS, SCALE
from killable import Run
from small_disk import filled, read_only, small_disk
from test_kills import refuse_half_states

NAMES = ["build_coco", "build_folder", "label_map", "predict", "evaluate"]
if SCALE > 1:
    NAMES = list(COMMANDS)


def refused(run, *words):
    assert run.status == 2, (run.status, run.err[-3000:])
    assert "Traceback" not in run.err, run.err[-3000:]
    (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert any(word in line for word in words), line


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up(world, tmp_path, name):
    command = COMMANDS[name]
    command.prepare(world, tmp_path / "needed")
    Run(command.module, command.words(world, tmp_path / "needed"), tmp_path / "run").wait()
    content = command.content(tmp_path / "needed")
    needed = sum(path.stat().st_size for path in (tmp_path / "needed").rglob("*") if path.is_file())
    rng = random.Random(name)
    for turn in range(1 if SCALE == 1 else 2):
        # At least a page; what a command finds there (verify) must fit.
        room = 0 if name in ("verify", "label_map") else 4096 + int(rng.uniform(0.1, 0.8) * needed)
        with small_disk(tmp_path / f"disk{turn}") as disk:
            command.prepare(world, disk / "out")
            words = command.words(world, disk / "out")
            with filled(disk, room):
                run = Run(command.module, words, tmp_path / "run").wait()
                refused(run, "disk full", "No space left", "cannot be written")
                refuse_half_states(disk / "out")
                COUNTS["full disks"] += 1
            run = Run(command.module, words, tmp_path / "run").wait()
            assert run.status == 0, run.err[-3000:]
            assert command.content(disk / "out") == content


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_folder(world, tmp_path, name):
    command = COMMANDS[name]
    with small_disk(tmp_path / "disk") as disk:
        command.prepare(world, disk / "out")
        before = files_of(disk)
        with read_only(disk):
            run = Run(command.module, command.words(world, disk / "out"), tmp_path / "run").wait()
            refused(run, "no permission", "Read-only file system", "read-only")
            assert files_of(disk) == before
            COUNTS["read-only folders"] += 1
