"""A small file system that can be filled and made read-only; tests that need one are skipped without root."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


@contextlib.contextmanager
def small_disk(folder: Path, megabytes: int = 64) -> Iterator[Path]:
    """Mounts a file system in memory at a new folder while the block runs."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={megabytes}m", "none"]
    done = subprocess.run(["mount", *options, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextlib.contextmanager
def filled(disk: Path, free: int) -> Iterator[None]:
    """Leaves so many bytes free while the block runs."""
    path = disk / "filling"
    there = os.statvfs(disk)
    path.write_bytes(b"\0" * (there.f_bavail * there.f_frsize - free))
    try:
        yield
    finally:
        path.unlink()


@contextlib.contextmanager
def read_only(disk: Path) -> Iterator[None]:
    """Takes no writing while the block runs."""
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    try:
        yield
    finally:
        subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
