"""A training on a disk that is full, read-only, or in use: one line, and nothing that was saved is lost."""

import errno
import fcntl
import os
import socket

import pytest
from run_checks import SMALL, assert_error, read_losses
from small_disk import filled, read_only, small_disk

from tfseg.folders import sole_writer
from tfseg.model_dir import read_model_dir

STAGE = [*SMALL, "--stage=attention", "--encoder_weights=none", "--checkpoint_every=2", "--summary_every=1"]


def test_a_full_disk(train, tmp_path):
    with small_disk(tmp_path / "disk") as disk:
        stage_dir = disk / "model/attention"
        words = [*STAGE, f"--model_dir={disk / 'model'}"]
        assert train(*words, "--steps=2").status == 0
        size = sum(path.stat().st_size for path in stage_dir.glob("ckpt-2.*"))
        for free in (0, size // 2):  # For nothing at all; for half a checkpoint.
            with filled(disk, free):
                line = assert_error(train(*words, "--steps=6"), f"{stage_dir}", ": disk full")
            assert line.endswith("; last whole checkpoint: 2")
            assert read_model_dir(disk / "model").load("attention")
            assert not list(stage_dir.glob("ckpt-*_temp"))
        run = train(*words, "--steps=6")
        assert run.status == 0, run.err
        assert [entry["step"] for entry in read_losses(disk / "model", "attention")] == list(range(1, 7))
        with read_only(disk):
            assert_error(train(*words, "--steps=8"), f"--model_dir={disk}/model", "read-only file system")


def test_what_is_in_the_way_is_told_before_tensorflow_is_loaded(train, tmp_path):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/attention").write_text("mine")
    for folder, named in (("file", "file"), ("file/model", "file"), ("model", "model/attention")):
        run = train(*STAGE, f"--model_dir={tmp_path / folder}", "--steps=2")
        assert_error(run, f"--model_dir={tmp_path}/", f"{tmp_path / named} is a file; a folder is needed")


def test_a_second_run_on_a_folder_is_refused(trained, start, train, tmp_path):
    model_dir, _ = trained
    words = [*SMALL, "--stage=joint", "--steps=100000", f"--init_dir={model_dir}", "--checkpoint_every=5"]
    log = tmp_path / "model/joint/losses.jsonl"

    def second_is_refused():
        if not (log.exists() and log.read_text()):
            return False
        run = start(*words, folder=tmp_path / "beside").wait()
        holder = f"process {first.pid} on {socket.gethostname()} is writing there"
        assert_error(run, f"--model_dir={tmp_path}/model: {holder}")
        return True

    (tmp_path / "beside").mkdir()
    first = start(*words)
    assert first.kill_when(second_is_refused).status == -9
    # The lock died with its holder; what it left unfinished is cleared away, what people put there is not.
    stage_dir = tmp_path / "model/joint"
    dead = [stage_dir / "ckpt-7_temp/part-00000-of-00001.index", stage_dir / f".run.json.{first.pid}.tmp"]
    mine = [
        stage_dir / "ckpt-best_temp/notes",
        stage_dir / f".run.json.{os.getppid()}.tmp",
        stage_dir / "a.tmp",
    ]
    mine.append(stage_dir / "ckpt-8_temp/notes")
    for path in (*dead, *mine):
        path.parent.mkdir(exist_ok=True)
        path.write_text("")
    done = len(read_losses(tmp_path / "model"))
    run = train(*words, f"--steps={done}")
    assert run.status == 0, run.err
    assert not any(path.exists() for path in dead) and not dead[0].parent.exists()
    assert all(path.exists() for path in mine)
    assert not (tmp_path / "model/.lock").exists()


@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS"])
def test_a_file_system_without_locks_is_written_all_the_same(monkeypatch, tmp_path, error):
    def flock(*_):
        raise OSError(getattr(errno, error), "no locks")

    monkeypatch.setattr(fcntl, "flock", flock)
    with sole_writer(tmp_path / "new", "--model_dir="):
        (tmp_path / "new/file").write_text("")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]
