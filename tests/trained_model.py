"""A model directory as training leaves it, made in a moment: networks of random weights, real logs."""

import json

import numpy as np
from small_networks import TWO_BLOCKS

from export.publish import export_model
from tfseg.model_dir import ModelDir, save_model_dir
from tfseg.models import build_classifier, build_transfernet
from tfseg.training.monitor import Monitor


def write_model_dir(path, label_map, seed=7):
    """Returns the ModelDir, its network and its classifier; stages joint and classifier hold logs."""
    config = TWO_BLOCKS.replace(num_labels=label_map.num_labels)
    directory = ModelDir(path, "transfernet", config, label_map)
    model, classifier = build_transfernet(config), build_classifier(config)
    save_model_dir(directory, model, classifier)
    losses = {"joint": ("loss", "cls_loss", "seg_loss", "cls_accuracy"), "classifier": ("loss",)}
    for stage, names in losses.items():
        monitor = Monitor(path / stage, 0, 30, 4, 5)
        for step in range(1, 31):
            monitor.update(step, {name: np.float32(1 / step) for name in names})
        monitor.close()
        (path / stage / "flags.cfg").write_text(f"--seed={seed}\n--stage={stage}\n--steps=50\n--note=<b>&\n")
        run = {"python": "3.11.0", "tensorflow": "2.21.0", "keras": "3.15.1", "numpy": "2.4.6"}
        data = {"split": "s", "images": 3, "pairs": 4, "masks": 3, "sha256": {"s.tfrecord": "ab12"}}
        run |= {"devices": ["CPU:0"], "parameters": 1234567, "data": {"source": data}}
        (path / stage / "run.json").write_text(json.dumps(run))
    return directory, model, classifier


def write_evaluations(folder, directory, split, numbers):
    """Writes ground_truth/, predicted/ and attention/metrics.json; `numbers`: mIoU by kind."""
    names = ["background", *(directory.label_map.label(i).name for i in split.label_map.ids(split.domain))]
    for kind, miou in numbers.items():
        attention = kind == "attention"
        metrics = {
            "miou": miou,
            "iou": {name: None if i == 1 else miou * i / len(names) for i, name in enumerate(names)},
            "classes_counted": len(names) - 1,
            "pixel_accuracy": 0.5,
            "images": len(split),
            "split": split.name,
            "labels": "predicted" if kind == "predicted" else "ground_truth",
            "method": "attention" if attention else "decoder",
            "command": f"python -m tfseg.evaluate --kind={kind} --x='<i>'",
            "weights": directory.fingerprint(),
            "seconds": 12.5,
        }
        if attention:
            metrics["best_threshold"] = "densified@0.6"
        if kind == "predicted":
            quality = {"precision": 0.5, "recall": 0.25, "f1": 0.33, "exact_set": 0.125, "map": None}
            metrics["label_quality"] = quality
        (folder / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind / "metrics.json").write_text(json.dumps(metrics))


def write_export(directory, model, classifier, folder):
    """Writes version 1 of an export and returns its directory."""
    export_model(directory, model, classifier, folder / "1")
    return folder / "1"
