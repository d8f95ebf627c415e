"""The dataset builders on Apache Beam, in its environment, against the same builders without it."""

import json
import subprocess

import pytest
from small_export import REPOSITORY
from test_consumers import python_of

from tfrecords.build_folder import main as build_folder

RUNNER = ("--runner=DirectRunner", "--", "--direct_running_mode=multi_processing", "--direct_num_workers=2")


def run(module, *words, status=0):
    command = [str(python_of("beam")), "-m", f"tfrecords.{module}", *map(str, words)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=600)
    assert done.returncode == status, (done.stdout + done.stderr)[-3000:]
    return done.stderr


def index_of(folder, split):
    return json.loads((folder / f"{split}.json").read_text())


@pytest.fixture
def folder_flags(synthetic_dir, tmp_path):
    images = synthetic_dir / "VOCdevkit/VOC2012/JPEGImages"
    label_map = json.loads((synthetic_dir / "labels.json").read_text())
    names = [label["name"] for label in label_map["labels"] if label["domain"] == "target"]
    rows = [f"{path.name},{names[i % len(names)]}" for i, path in enumerate(sorted(images.iterdir()))]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label", *rows]) + "\n")
    flags = [f"--images={images}", f"--csv={tmp_path / 'labels.csv'}", "--val_fraction=0.3"]
    return [*flags, f"--label_map={synthetic_dir / 'labels.json'}", "--num_shards=3"]


def test_the_same_bytes_as_without_beam(synthetic_dir, synthetic_records, folder_flags, tmp_path):
    """`SPLIT.json` holds the SHA-256 and the index of all shards."""
    out = tmp_path / "beam"
    given = [f"--label_map={synthetic_dir / 'labels.json'}", f"--output_dir={out}"]
    coco = [f"--annotations={synthetic_dir / 'coco/annotations/instances_train.json'}"]
    coco += [f"--images={synthetic_dir / 'coco/train'}", "--split=source_train", "--num_shards=2"]
    run("build_coco", *given, *coco, *RUNNER)
    voc = [f"--voc_root={synthetic_dir / 'VOCdevkit/VOC2012'}", "--split=train"]
    run("build_voc", *given, *voc, "--output_split=target_train", *RUNNER)
    for split in ("source_train", "target_train"):
        assert index_of(out, split) == index_of(synthetic_records, split)

    assert build_folder([*folder_flags, f"--output_dir={tmp_path / 'local'}", "--workers=1"]) == 0
    run("build_folder", *folder_flags, f"--output_dir={out}", "--split=one", "--val_split=two", *RUNNER)
    for split, local in (("one", "target_train"), ("two", "target_val")):
        found, wanted = index_of(out, split), index_of(tmp_path / "local", local)
        assert list(found["sha256"].values()) == list(wanted["sha256"].values())
        assert found["pairs_per_class"] == wanted["pairs_per_class"]
    assert sorted(path.suffix for path in out.iterdir()) == [".json"] * 4 + [".tfrecord"] * 9


def test_what_is_wrong_is_said_in_one_line(folder_flags, tmp_path):
    """A bad image is met by a worker; a runner that is none, by Beam."""
    images = tmp_path / "images"
    images.mkdir()
    (images / "bad.jpg").write_bytes(b"hello")
    rows = (tmp_path / "labels.csv").read_text().splitlines()
    (tmp_path / "bad.csv").write_text(f"{rows[0]}\nbad.jpg,{rows[1].split(',')[1]}\n")
    flags = [f"--images={images}", f"--csv={tmp_path / 'bad.csv'}", *folder_flags[3:]]
    flags.append(f"--output_dir={tmp_path / 'out'}")
    for runner, said in ((RUNNER[0], "bad.jpg: "), ("--runner=Nobody", "Unexpected pipeline runner: Nobody")):
        (line,) = [
            line for line in run("build_folder", *flags, runner, status=2).splitlines() if "error" in line
        ]
        assert line.startswith("error: ") and said in line
    assert not list((tmp_path / "out").glob("*"))
