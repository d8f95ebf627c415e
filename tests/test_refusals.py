"""What commands say when the system refuses a file, or stops them: one line; what was written stays whole."""

import json
import os
import shutil
import signal

import in_process
import pytest
import tensorflow as tf
from PIL import Image
from small_disk import filled, read_only, small_disk
from trained_model import write_model_dir

import export.saved_model
import export.serve_files
import tfrecords.build_synthetic
import tfrecords.build_voc
import tfrecords.label_map
import tfseg.evaluate
import tfseg.figures
import tfseg.import_caffe
import tfseg.predict
import tfseg.report
from tfseg.data.records import Split
from tfseg.evaluation.progress import Progress
from tfseg.files import refusal
from tfseg.folders import remove_dead, sole_writer
from tfseg.inference.segmenter import Segmenter


@pytest.fixture(scope="module")
def model_dir(synthetic_records, tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "model"
    write_model_dir(path, Split.load(synthetic_records, "target_val").label_map)
    return path


def error_of(command, *words):
    """The one line with which a command ends."""
    run = in_process.call(command.main, *words)
    lines = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert run.returncode == 2 and len(lines) == 1, run.stderr
    return lines[0]


@pytest.fixture
def calls(model_dir, synthetic_dir, synthetic_records, tmp_path):
    """Calls of commands, without the flag that names where they write."""
    voc, labels = synthetic_dir / "VOCdevkit/VOC2012", synthetic_dir / "labels.json"
    model, data = f"--model_dir={model_dir}", f"--data_dir={synthetic_records}"
    image = tmp_path / "image.png"
    Image.new("RGB", (40, 30), "red").save(image)
    return {
        "evaluate": (tfseg.evaluate, model, data, "--labels=ground_truth"),
        "predict": (tfseg.predict, model, image),
        "export": (export.saved_model, model),
        "voc": (tfrecords.build_voc, f"--voc_root={voc}", f"--label_map={labels}", "--split=val"),
        "synthetic": (tfrecords.build_synthetic, "--source_train=2", "--target_train=2", "--target_val=2"),
        "serve": (export.serve_files, f"--export_dir={tmp_path}"),
    }  # fmt: skip


COMMANDS = ["evaluate", "predict", "export", "voc", "synthetic"]


@pytest.mark.parametrize("name", [*COMMANDS, "serve"])
def test_a_file_in_the_place_of_the_folder_is_told_before_a_model_is_loaded(
    calls, tmp_path, monkeypatch, name
):
    monkeypatch.setattr(Segmenter, "load", lambda *_, **__: pytest.fail("a model was loaded"))
    monkeypatch.setattr(tf.train.Checkpoint, "restore", lambda *_: pytest.fail("a model was loaded"))
    command, *words = calls[name]
    (tmp_path / "file").write_text("mine")
    line = error_of(command, *words, f"--output_dir={tmp_path / 'file'}")
    assert f"{tmp_path / 'file'} is a file; a folder is needed" in line
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_the_place_of_the_file(model_dir, synthetic_records, tmp_path):
    words = [f"--model_dir={model_dir}", f"--data_dir={synthetic_records}", f"--output={tmp_path}"]
    assert f"--output={tmp_path}: is a folder; a file is needed" in error_of(
        tfseg.figures, "--figure=2", *words
    )
    assert "is a folder" in error_of(tfseg.report, *words, "--evaluations=x", "--export_dir=x")
    line = error_of(tfrecords.label_map, "--names=a", "--domain=target", f"--output={tmp_path}")
    assert "is a folder" in line


def test_full_and_read_only_disks(calls, tmp_path):
    """Each command on a disk that is full from the start, and on one that takes nothing."""
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        (disk / "mine").write_text("mine")
        for name in COMMANDS:
            command, *words = calls[name]
            with filled(disk, 0):
                line = error_of(command, *words, f"--output_dir={disk / name}")
            assert f"{disk}/" in line and ": disk full" in line, line
            with read_only(disk):
                line = error_of(command, *words, f"--output_dir={disk / name}")
            assert f"--output_dir={disk / name}: no permission, {disk}" in line and "read-only" in line
        assert [path for path in disk.rglob("*") if path.is_file()] == [disk / "mine"]


def test_an_evaluation_goes_on_after_a_full_disk(calls, tmp_path, model_dir):
    command, *words = calls["evaluate"]
    with small_disk(tmp_path / "disk", megabytes=8) as disk:
        with filled(disk, 5 * 4096):
            line = error_of(command, *words, "--method=attention", f"--output_dir={disk / 'out'}")
        assert (
            f"{disk}/out/progress.jsonl: disk full; " in line
            and "images are done; the same command goes on" in line
        )
        done = (disk / "out/progress.jsonl").read_bytes().count(b"\n") - 1
        assert f"; {done} of 8 images" in line and 0 < done < 8
        run = in_process.call(command.main, *words, "--method=attention", f"--output_dir={disk / 'out'}")
        assert run.returncode == 0, run.stderr
        assert json.loads((disk / "out/metrics.json").read_text())["images"] == 8


def stop_after(monkeypatch, owner, name, count, signum):
    """Has a signal come right after the so many-th call of a function."""
    function, calls = getattr(owner, name), []

    def stopping(*args):
        result = function(*args)
        calls.append(args)
        if len(calls) == count:
            os.kill(os.getpid(), signum)
        return result

    monkeypatch.setattr(owner, name, stopping)


def test_a_stopped_evaluation_goes_on(calls, tmp_path, monkeypatch):
    command, *words = calls["evaluate"]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    assert in_process.call(command.main, *words, f"--output_dir={whole}").returncode == 0
    with monkeypatch.context() as patched:
        stop_after(patched, Progress, "add", 3, signal.SIGTERM)
        run = in_process.call(command.main, *words, f"--output_dir={stopped}")
    assert run.returncode == 143
    assert run.stderr.splitlines()[-1] == "terminated: 2 of 8 images are done; the same command goes on"
    assert (stopped / "progress.jsonl").read_bytes().count(b"\n") == 1 + 3  # The third was not counted yet.
    assert not (stopped / "metrics.json").exists()
    assert in_process.call(command.main, *words, f"--output_dir={stopped}").returncode == 0
    found = [json.loads((folder / "metrics.json").read_text()) for folder in (whole, stopped)]
    assert found[0]["iou"] == found[1]["iou"] and found[1]["images"] == 8


def test_a_stopped_prediction_describes_what_is_there(calls, tmp_path, monkeypatch):
    command, *words = calls["predict"]
    Image.new("RGB", (20, 30), "blue").save(tmp_path / "second.png")
    stop_after(monkeypatch, tfseg.predict, "_summary", 2, signal.SIGINT)
    run = in_process.call(command.main, *words, tmp_path / "second.png", f"--output_dir={tmp_path / 'out'}")
    assert run.returncode == 130
    assert run.stderr.splitlines()[-1] == "interrupted: 1 of 2 images are described in predictions.json"
    (described,) = json.loads((tmp_path / "out/predictions.json").read_text())
    assert described["name"] == "image" and (tmp_path / "out/masks/image.png").is_file()


def test_a_second_process_is_refused(calls, tmp_path):
    for name in ("evaluate", "predict"):
        command, *words = calls[name]
        with sole_writer(tmp_path / name, ""):
            line = error_of(command, *words, f"--output_dir={tmp_path / name}")
        assert (
            f"--output_dir={tmp_path / name}: process {os.getpid()} on " in line
            and "is writing there" in line
        )


def test_what_dead_processes_left_is_cleared(calls, tmp_path):
    dead = 2**22 + 1  # Above the largest number of a process.
    folders = {"export": [f".tmp-4-{dead}", ".tmp-5"], "voc": [".other.building"]}
    content = {"export": "variables", "voc": "other-00000-of-00002.tfrecord"}
    kept = [f".tmp-4-{os.getppid()}", ".tmp-6", "mine.tmp"]
    for name, gone in folders.items():
        command, *words = calls[name]
        out = tmp_path / name
        for folder in (*gone, *kept):
            (out / folder).mkdir(parents=True)
            (out / folder / (content[name] if folder != ".tmp-6" else "notes")).write_text("")
        if name == "export":  # Which then ends soon, for the version is there.
            (out / "1").mkdir()
            assert f"{out / '1'}: exists" in error_of(command, *words, f"--output_dir={out}", "--version=1")
        else:
            assert in_process.call(command.main, *words, f"--output_dir={out}").returncode == 0
        assert {path.name for path in out.iterdir() if path.is_dir()} - {"1"} == set(kept)
    out = tmp_path / "predict"
    (out / "masks").mkdir(parents=True)
    (out / "masks" / f".a.png.{dead}.tmp").write_text("")
    (out / "masks" / f".b.png.{os.getppid()}.tmp").write_text("")
    command, *words = calls["predict"]
    assert in_process.call(command.main, *words, f"--output_dir={out}").returncode == 0
    assert sorted(path.name for path in (out / "masks").iterdir()) == [
        f".b.png.{os.getppid()}.tmp",
        "image.png",
    ]


def test_living_workspaces_stay(tmp_path):
    with sole_writer(tmp_path, ""):
        pass
    from tfseg.folders import workspace

    with workspace(tmp_path / ".a.building") as building:
        remove_dead(tmp_path, r"\..+\.building", ".*")
        assert building.is_dir()
    assert not building.exists()
    shutil.rmtree(tmp_path)
    remove_dead(tmp_path, ".*", ".*")


def test_an_older_checkpoint_that_is_whole_is_named(calls, model_dir, tmp_path):
    """And taken by the flag that is named; of a stage without one, when the damaged one is moved away."""
    copy = tmp_path / "model"
    shutil.copytree(model_dir, copy)
    for stage in ("joint", "classifier"):
        for path in (copy / stage).glob("ckpt-0.*"):
            for number in (2, 4):
                shutil.copy(path, path.with_name(path.name.replace("ckpt-0", f"ckpt-{number}")))
        for number in (2, 4):
            data = copy / stage / f"ckpt-{number}.data-00000-of-00001"
            data.write_bytes(data.read_bytes()[:500])
    for name in ("evaluate", "predict", "export"):
        command, _, *words = calls[name]
        line = error_of(command, f"--model_dir={copy}", *words, f"--output_dir={tmp_path / name}")
        assert f"{copy}/joint/ckpt-4: cannot be loaded" in line
        assert line.endswith(f"; {copy}/joint/ckpt-0 is older and whole, take it by --checkpoint=0")
    command, _, *words = calls["predict"]
    words = [f"--model_dir={copy}", *words, f"--output_dir={tmp_path / 'predict'}", "--checkpoint=0"]
    assert error_of(command, *words).endswith(
        f"; {copy}/classifier/ckpt-0 is older and whole, move {copy}/classifier/ckpt-4.* away to take 0"
    )
    for path in (copy / "classifier").glob("ckpt-[24].*"):
        path.unlink()
    assert in_process.call(command.main, *words).returncode == 0


def tensorflow_error(text):
    return tf.errors.UnknownError(None, None, text)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (OSError(28, "x", "/a/b"), "/a/b: disk full"),
        (OSError(28, "x"), "disk full"),
        (OSError(30, "x", "/a"), "/a: read-only file system"),
        (OSError(2, "x", "/a"), "/a: No such file or directory"),
        (OSError(2, "x"), None),
        (OSError("unable to write (errno = 28, error message = 'No space left on device')"), "disk full"),
        (tensorflow_error("{{node x}} /a/b; No space left on device [Op:SaveV2]"), "/a/b: disk full"),
        (tensorflow_error("/a/b; Read-only file system"), "/a/b: read-only file system"),
        (tensorflow_error("/a/b; Is a directory"), "/a/b: is a folder; a file is needed"),
        (tensorflow_error("OOM when allocating tensor"), None),
        (ValueError("No space left on device"), None),
    ],
)
def test_the_reasons_of_the_system_in_words(error, words):
    assert refusal(error) == words
