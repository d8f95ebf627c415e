"""Atomic writing."""

import os

import pytest

from tfseg.files import write_atomic


def test_new_and_replaced_files(tmp_path):
    path = tmp_path / "deep" / "file.txt"
    write_atomic(path, b"one")
    write_atomic(str(path), b"two")
    assert path.read_bytes() == b"two"
    assert os.listdir(path.parent) == ["file.txt"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    write_atomic(path, b"one")

    def full(*_):
        raise OSError(28, "No space left on device", os.fspath(path))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"two")
    assert path.read_bytes() == b"one"
    assert os.listdir(tmp_path) == ["file.txt"]
