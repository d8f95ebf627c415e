"""The command: files in, a model directory out, one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import golden
import numpy as np
import pytest
from caffe_writer import write_caffemodel
from in_process import call

from tfseg import import_caffe
from tfseg.importers.caffe import infer_config, load_caffemodel
from tfseg.model_dir import load_classifier, load_model, read_model_dir

WEIGHTS = golden.FOLDER / "weights.caffemodel"


def _import(*arguments: str) -> SimpleNamespace:
    return call(import_caffe.main, *arguments)


def test_model_directory_computes_the_golden(tmp_path: Path):
    """Both files of the authors in one go; what is loaded again is the golden's network."""
    layers = load_caffemodel(WEIGHTS)
    config = infer_config(layers)
    rng = np.random.default_rng(0)
    kernel = max(config.map_size // 2 - 3, 1)
    shapes = {
        "fc6": (16, config.feature_channels, kernel, kernel),
        "fc7": (16, 16, 1, 1),
        "score": (config.num_labels, 16, 1, 1),
    }
    separate = {name: blobs for name, blobs in layers.items() if name.startswith("conv")} | {
        name: [rng.normal(size=s).astype(np.float32), np.zeros(s[0], np.float32)]
        for name, s in shapes.items()
    }
    write_caffemodel(tmp_path / "classifier.caffemodel", separate)
    output = tmp_path / "new" / "model"
    done = _import(
        f"--caffemodel={tmp_path / 'classifier.caffemodel'}",
        f"--caffemodel={WEIGHTS}",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    assert [p.name for p in output.parent.iterdir()] == ["model"]

    directory = read_model_dir(output)
    assert directory.config == config.replace(classifier_units=16)
    assert directory.label_map.num_labels == config.num_labels
    data = golden.batch(config)
    outputs = load_model(output)({"image": data["image"], "label": data["label"]})
    want = golden.arrays("forward")
    assert golden.error(outputs["class_logits"].numpy(), want["cls-score"]) <= 1e-5
    assert golden.error(golden.to_nchw(outputs["mask_logits"].numpy()), want["seg-score"]) <= 1e-5
    score = load_classifier(output).get_layer("classifier_head").get_layer("score")
    np.testing.assert_array_equal(score.kernel.numpy()[0, 0].T, separate["score"][0][:, :, 0, 0])


def test_without_classification_head(tmp_path: Path):
    layers = load_caffemodel(WEIGHTS)
    del layers["ip1"], layers["cls-score-voc-att"]
    write_caffemodel(tmp_path / "deploy.caffemodel", layers)
    done = _import(f"--caffemodel={tmp_path / 'deploy.caffemodel'}", f"--output={tmp_path / 'm'}")
    assert done.returncode == 0, done.stderr
    assert "random: ip1, cls_score" in done.stdout


def _cut(folder: Path) -> list[str]:
    (folder / "cut.caffemodel").write_bytes(WEIGHTS.read_bytes()[:100_000])
    return [f"--caffemodel={folder / 'cut.caffemodel'}", f"--output={folder / 'm'}"]


def _other_labels(folder: Path) -> list[str]:
    one_more = infer_config(load_caffemodel(WEIGHTS)).num_labels + 1
    labels = [{"id": i, "name": f"l{i}", "domain": "target"} for i in range(1, one_more + 1)]
    content = json.dumps({"name": "other", "labels": labels})
    (folder / "labels.json").write_text(content)
    label_map = f"--label_map={folder / 'labels.json'}"
    return [f"--caffemodel={WEIGHTS}", f"--output={folder / 'm'}", label_map]


def _occupied(folder: Path) -> list[str]:
    (folder / "m").mkdir()
    (folder / "m" / "notes.txt").write_text("mine")
    return [f"--caffemodel={WEIGHTS}", f"--output={folder / 'm'}"]


def _twice(folder: Path) -> list[str]:
    return [f"--caffemodel={WEIGHTS}", f"--caffemodel={WEIGHTS}", f"--output={folder / 'm'}"]


@pytest.mark.parametrize(
    ("mistake", "says"),
    [
        (_cut, "cut.caffemodel, byte"),
        (_other_labels, "labels, the network"),
        (_occupied, "exists already"),
        (_twice, "same kind"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, mistake, says: str):
    done = _import(*mistake(tmp_path))
    assert done.returncode == 2
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and says in errors[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m" / "model.json").exists()
    assert not list(tmp_path.glob(".m*"))
