"""`export.batch_predict` in the environment of Apache Beam, against the `Segmenter` here."""

import json
import subprocess

import numpy as np
import pytest
from image_files import encode, picture
from PIL import Image
from small_export import REPOSITORY
from test_consumers import ENVIRONMENTS


@pytest.fixture
def run():
    python = ENVIRONMENTS["beam"] / "bin" / "python"
    if not python.is_file():
        pytest.skip(".venv-consumers/beam is not built: make test-consumers builds it")

    def call(*words, status=0):
        command = [str(python), "-m", "export.batch_predict", *map(str, words)]
        done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=1800)
        assert done.returncode == status, (done.stdout + done.stderr)[-3000:]
        return done.stdout + done.stderr

    return call


def lines(folder, kind):
    return [json.loads(line) for path in sorted(folder.glob(f"{kind}-*")) for line in open(path)]


def assert_segmented(entry, folder, exported, source, labels=None):
    expected = exported.segmenter.segment(source, labels)
    with Image.open(folder / entry["mask"]) as opened:
        mask = np.array(opened)
    assert mask.shape == expected.label_map.shape == (entry["height"], entry["width"])
    assert (mask != expected.label_map).mean() < 0.002
    assert entry["labels"] == list(expected.labels)
    assert entry["names"] == [exported.label_map.label(label).name for label in expected.labels]
    pairs = zip(entry["names"], entry["labels"], strict=True)
    assert entry["pixels"] == {n: int((mask == i).sum()) for n, i in pairs}


def test_files(exported, run, tmp_path):
    """Good ones are segmented, bad ones told; a second run does what is missing and nothing else."""
    folder, output = tmp_path / "photographs", tmp_path / "out"
    folder.mkdir()
    for i in range(5):
        kind = ("JPEG", "PNG")[i % 2]
        image = picture(40 + 7 * i, 60, seed=i).convert("RGB")
        (folder / f"{i}.{kind.lower()}").write_bytes(encode(image, kind))
    (folder / "bad.png").write_bytes(b"hello")
    (folder / "long.png").write_bytes(encode(Image.new("RGB", (9000, 1)), "PNG"))
    words = [f"--export_dir={exported.version_dir.parent}", f"--images={folder}/*", f"--output_dir={output}"]
    said = run(*words, "--shard_size=3", "--batch_size=2", status=1)
    assert "3 shards, 0 finished before" in said and "5 images segmented, 2 failed" in said
    index = lines(output, "index")
    assert sorted(entry["image"] for entry in index) == sorted(
        str(path) for path in folder.iterdir() if path.stem.isdigit()
    )
    for entry in index:
        assert_segmented(entry, output, exported, entry["image"])
        assert len(entry["scores"]) == len(entry["labels"])
    errors = {entry["image"]: entry["error"] for entry in lines(output, "errors")}
    assert "no image of a known format" in errors[str(folder / "bad.png")]
    assert "has 9000x1 pixels" in errors[str(folder / "long.png")]

    second = 1 if (output / "errors-00001-of-00003.jsonl").read_text() else 0
    before = {path: path.stat().st_mtime_ns for path in output.rglob("*.png")}
    (output / "index-00001-of-00003.jsonl").unlink()
    said = run(*words, "--shard_size=3", "--batch_size=2", status=second)
    assert "3 shards, 2 finished before" in said
    assert lines(output, "index") == index
    again = {path for path, changed in before.items() if path.stat().st_mtime_ns != changed}
    assert again == {path for path in before if path.parent.name == "00001"}


def test_records_by_two_workers(exported, run, synthetic_records, tmp_path):
    output = tmp_path / "out"
    words = [f"--export_dir={exported.version_dir}", f"--records={synthetic_records}/target_val-*.tfrecord"]
    runner = ["--", "--direct_running_mode=multi_processing", "--direct_num_workers=2"]
    run(*words, f"--output_dir={output}", "--label=dog", "--label=4", *runner)
    index = lines(output, "index")
    assert len(index) == 8
    assert all(entry["names"] == ["dog", "bench"] for entry in index)
    assert all((output / entry["mask"]).is_file() for entry in index)
