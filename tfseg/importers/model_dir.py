"""A model directory from the authors' Caffe files: a TransferNet, its label classifier, or both."""

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import keras

from tfseg.config import ModelConfig
from tfseg.data.labels import Label, LabelMap
from tfseg.errors import InputError
from tfseg.files import sync_directory
from tfseg.folders import workspace
from tfseg.importers.caffe import import_transfernet, infer_config, load_caffemodel
from tfseg.importers.caffe_classifier import (
    import_classifier,
    infer_classifier_config,
    is_classifier,
)
from tfseg.model_dir import ModelDir, save_model_dir
from tfseg.models import build_classifier, build_transfernet
from tfseg.shipped import locate

_LABELS = "tfseg:labels/voc20_coco60.json"


def import_model_dir(caffemodels: Sequence[str], output_dir: str, label_map_file: str | None = None) -> None:
    """Builds the networks that Caffe files hold and saves them with their labels.

    Args:
        caffemodels: Files of Caffe weights; their layers tell which network is in which.
        output_dir: Model directory to write, new.
        label_map_file: JSON file of the labels; None for the shipped one where it fits.

    Raises:
        InputError: If the folder is not empty, or the files do not hold such networks.
    """
    output = Path(output_dir).absolute()
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise InputError(f"--output={output_dir}: exists already; give a new directory")
    transfernet, classifier, config = _infer(caffemodels)
    label_map = _label_map(label_map_file, config.num_labels)

    networks = {}
    if transfernet:
        networks["model"] = build_transfernet(config)
        kept = import_transfernet(transfernet, networks["model"])
        print(f"{transfernet}: {networks['model'].count_params():,} parameters of a TransferNet")
        if kept:
            print(f"not in the file, so random: {', '.join(kept)}; only training needs them")
    if classifier:
        networks["classifier"] = build_classifier(config)
        import_classifier(classifier, networks["classifier"], config)
        print(f"{classifier}: {networks['classifier'].count_params():,} parameters of a classifier")
    _save_whole(ModelDir(output, "transfernet", config, label_map), networks)
    print(
        f"{output_dir}: {config.image_size}x{config.image_size} pixels, {config.num_labels} labels "
        f"({label_map.name})"
    )


def _infer(paths: Sequence[str]) -> tuple[str | None, str | None, ModelConfig]:
    """Tells which file is which, and the one configuration that fits them.

    The weights are read again when they are set: reading is fast, holding two networks is not.
    """
    transfernet = classifier = None
    for path in paths:
        if is_classifier(load_caffemodel(path)):
            classifier, other = path, classifier
        else:
            transfernet, other = path, transfernet
        if other:
            raise InputError(f"--caffemodel: {other} and {path} hold networks of the same kind")
    config = infer_config(load_caffemodel(transfernet), transfernet) if transfernet else None
    if classifier:
        config = infer_classifier_config(load_caffemodel(classifier), config, classifier)
    return transfernet, classifier, config


def _save_whole(directory: ModelDir, networks: dict[str, keras.Model]) -> None:
    """Writes the model directory under another name and renames it when it is whole."""
    path = directory.path
    with workspace(path.with_name(f".{path.name}.building")) as building:
        save_model_dir(dataclasses.replace(directory, path=building), **networks)
        os.replace(building, path)
    sync_directory(path.parent)


def _label_map(path: str | None, num_labels: int) -> LabelMap:
    """Reads the label map, or makes one where the shipped one does not fit."""
    if path is None and num_labels != 80:
        labels = (Label(i, f"label_{i}", "target") for i in range(1, num_labels + 1))
        return LabelMap("unnamed", tuple(labels))
    label_map = LabelMap.load(locate(path or _LABELS))
    if label_map.num_labels != num_labels:
        raise InputError(f"--label_map={path}: has {label_map.num_labels} labels, the network {num_labels}")
    return label_map
