"""A full disk, a read-only folder: one line, status 2, nothing half; with room again the command ends well.

File systems are mounted for it, which needs root.
"""

import contextlib
import os
import random
import shutil
import subprocess
import sys

import pytest
from commands import COMMANDS, files_of
from fault_counts import COUNTS, SCALE
from killable import Run
from test_kills import refuse_half_states

NAMES = ["build_coco", "build_folder", "label_map", "predict", "evaluate"]
if SCALE > 1:
    NAMES = list(COMMANDS)


@contextlib.contextmanager
def mounted(folder, *options):
    """Mounts on a folder, or skips where that is not allowed."""
    folder.mkdir(exist_ok=True)
    if not sys.platform.startswith("linux") or os.getuid() or not shutil.which("mount"):
        pytest.skip("mounting a file system needs root")
    done = subprocess.run(["mount", *options, str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"file systems cannot be mounted here: {done.stderr.strip()}")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def refused(run, *words):
    assert run.status == 2, (run.status, run.err[-3000:])
    assert "Traceback" not in run.err, run.err[-3000:]
    (line,) = [line for line in run.err.splitlines() if line.startswith("error: ")]
    assert any(word in line for word in words), line


@pytest.mark.parametrize("name", NAMES)
def test_a_disk_that_fills_up(world, tmp_path, name):
    command, disk = COMMANDS[name], tmp_path / "disk"
    command.prepare(world, tmp_path / "needed")
    Run(command.module, command.words(world, tmp_path / "needed"), tmp_path / "run").wait()
    content = command.content(tmp_path / "needed")
    needed = sum(path.stat().st_size for path in (tmp_path / "needed").rglob("*") if path.is_file())
    rng = random.Random(name)
    for _ in range(1 if SCALE == 1 else 2):
        # At least a page; what a command finds there (verify) must fit.
        room = 4096 + (0 if name == "label_map" else int(rng.uniform(0.1, 0.8) * needed))
        with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "tmpfs"):
            command.prepare(world, disk / "out")
            filler = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize - room
            if name in ("verify", "label_map"):
                filler += room - 0
            with open(disk / "filler", "wb") as file, contextlib.suppress(OSError):
                file.write(bytes(filler))
            run = Run(command.module, command.words(world, disk / "out"), tmp_path / "run").wait()
            refused(run, "disk full", "No space left", "cannot be written")
            refuse_half_states(disk / "out")
            COUNTS["full disks"] += 1
            (disk / "filler").unlink()
            run = Run(command.module, command.words(world, disk / "out"), tmp_path / "run").wait()
            assert run.status == 0, run.err[-3000:]
            assert command.content(disk / "out") == content


@pytest.mark.parametrize("name", NAMES)
def test_a_read_only_folder(world, tmp_path, name):
    command, disk = COMMANDS[name], tmp_path / "disk"
    with mounted(disk, "-t", "tmpfs", "-o", "size=64m", "tmpfs"):
        command.prepare(world, disk / "out")
        before = files_of(disk)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        run = Run(command.module, command.words(world, disk / "out"), tmp_path / "run").wait()
        refused(run, "no permission", "Read-only file system", "read-only")
        assert files_of(disk) == before
        COUNTS["read-only folders"] += 1
