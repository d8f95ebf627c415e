"""Atomic writing."""

import os

import pytest

from tfseg.errors import InputError
from tfseg.files import read_json, require_output_folder, require_plain_path, write_atomic


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


def test_the_longest_names_are_written(tmp_path):
    for name in ("a" * 251 + ".png", "\u5199" * 83 + ".png"):
        write_atomic(tmp_path / name, b"one")
        assert (tmp_path / name).read_bytes() == b"one"
        assert os.listdir(tmp_path) == [name]
        (tmp_path / name).unlink()


def test_output_folders_are_tried_before_any_work(tmp_path, monkeypatch):
    require_output_folder(tmp_path / "new" / "deep", "--output_dir=")
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "deep"):
        with pytest.raises(InputError, match=r"--output_dir=.*file is a file; a folder is needed"):
            require_output_folder(path, "--output_dir=")
    with pytest.raises(InputError, match=r"--output_dir='.*caf\\udce9': is not UTF-8"):
        require_output_folder(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"), "--output_dir=")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(InputError, match=r"no permission, .* may not be written to"):
        require_output_folder(tmp_path / "new", "--output_dir=")


@pytest.mark.parametrize("character", list("[]*?{}\\"))
def test_paths_that_tensorflow_takes_for_patterns_are_refused(tmp_path, character):
    with pytest.raises(InputError, match=r"--model_dir=.*which TensorFlow takes for a pattern"):
        require_plain_path(tmp_path / f"run{character}1" / "model", "--model_dir=")
    require_plain_path(tmp_path / "a run, (1) = 'x' & \u5199", "--model_dir=")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_in_every_unicode(tmp_path, encoding):
    path = tmp_path / "a.json"
    path.write_text('{"a": "\u5199"}', encoding=encoding)
    assert read_json(path) == {"a": "\u5199"}


def test_what_is_no_json(tmp_path):
    for data in (b"", b"{", b"\xff", b"[" * 100_000):
        (tmp_path / "a.json").write_bytes(data)
        with pytest.raises(InputError, match=r"a\.json: is not JSON"):
            read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match="the map: cannot be read"):
        read_json(tmp_path / "none.json", "the map")


def test_a_pipe_or_a_folder_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name, what in (("pipe", "device or a pipe"), ("folder", "folder"), ("", "folder")):
        with pytest.raises(InputError, match=f"{name}: is a {what}; a file is needed"):
            write_atomic(tmp_path / name, b"new")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 2


def test_an_error_names_the_file_not_its_temporary_one(tmp_path):
    with pytest.raises(OSError, match="File name too long") as caught:
        write_atomic(tmp_path / ("n" * 256), b"new")
    assert caught.value.filename == str(tmp_path / ("n" * 256))
