"""Fixtures that several packages' tests use."""

import os
import signal
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import fault_counts
import pytest

from tfrecords import coco, synthetic, voc
from tfseg.data.labels import LabelMap

# A shell ignores Ctrl-C for what it runs in the background, and programs inherit that: tests send it.
signal.signal(signal.SIGINT, signal.default_int_handler)

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What `make test-faults` is for: how many faults were tried."""
    if fault_counts.SCALE > 1:
        for kind, count in sorted(fault_counts.COUNTS.items()):
            terminalreporter.write_line(f"{count:7,} {kind}")


@pytest.fixture(scope="session")
def real_sample() -> Path:
    """The small real sample of COCO and VOC beside the repository."""
    path = REPOSITORY.parent / "shared" / "real_sample"
    if not path.is_dir():
        pytest.skip(f"the real sample is not there ({path})")
    return path


@pytest.fixture(scope="session")
def voc20_coco60() -> LabelMap:
    """The label map that ships."""
    return LabelMap.load(REPOSITORY / "configs/labels/voc20_coco60.json")


@pytest.fixture(scope="session")
def synthetic_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny synthetic set in the layouts of COCO and VOC: 24 source, 16 + 8 target images."""
    folder = tmp_path_factory.mktemp("synthetic") / "set"
    synthetic.build(
        folder, synthetic.Options(7, source_train=24, target_train=16, target_val=8, image_size=96)
    )
    return folder


@pytest.fixture(scope="session")
def synthetic_records(synthetic_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of `synthetic_dir`: the splits source_train, target_train and target_val."""
    folder = tmp_path_factory.mktemp("records")
    label_map = LabelMap.load(synthetic_dir / "labels.json")
    annotations = synthetic_dir / "coco/annotations/instances_train.json"
    images = synthetic_dir / "coco/train"
    coco.build(annotations, images, label_map, coco.Rules(), "source_train", folder, num_shards=2)
    voc_folder = voc.VocFolder(synthetic_dir / "VOCdevkit/VOC2012", label_map)
    for split in ("train", "val"):
        voc.build(voc_folder, split, folder, output_split=f"target_{split}")
    return folder
