"""Writes a SavedModel of a model directory and checks it against the Keras model."""

import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfseg import cli
from tfseg.errors import InputError
from tfseg.files import sync_directory, write_atomic
from tfseg.model_dir import ModelDir, read_model_dir

TOLERANCE = 1e-5
"""Largest allowed difference between a probability of the reloaded export and of the Keras model."""


EXAMPLES = (
    "--model_dir=runs/demo/model --output_dir=runs/demo/export",
    "--model_dir=runs/demo/model --output_dir=runs/demo/export --version=7",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """Which model is exported to where; each field is a flag."""

    model_dir: str = cli.flag("Model directory of tfseg.train.", exists="folder")
    output_dir: str = cli.flag("Directory of the versions, one folder each.")
    version: int = cli.flag("Number of the version; 0: the next one.", default=0, lower=0)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("export.saved_model", __doc__, ExportOptions, _run, argv, EXAMPLES)


def _run(options: ExportOptions) -> None:
    """Exports the newest weights and holds the reloaded export to the Keras model."""
    directory = read_model_dir(options.model_dir)
    model = directory.load("joint")
    classifier = directory.load_classifier()
    output_dir = Path(options.output_dir)
    version_dir = output_dir / str(options.version or next_version(output_dir))
    difference = export_model(directory, model, classifier, version_dir)
    print(f"{version_dir}: written; reloaded, it differs from the Keras model by at most {difference:.1e}")


def export_model(
    directory: ModelDir, model: keras.Model, classifier: keras.Model | None, version_dir: Path
) -> float:
    """Writes one version, whole or not at all.

    `serving_default` takes `image`, float32 `[B, S, S, 3]` RGB 0 to 255, padded to a square at the bottom and
    right, and `label`, int32 `[B]`, ids 1 to L; it gives `probability`, float32 `[B, S, S]`, the label's
    softmax foreground probability. With a classifier, `classify` takes `image` and gives `probability`,
    float32 `[B, L]`. The label map lies in `assets.extra/labels.json`.

    Args:
        directory: Configuration and labels.
        model: Segmentation network in float32; half precision would be baked into the graph.
        classifier: Whole-image classifier, or None.
        version_dir: Folder to make; its name is the version.

    Returns:
        Largest absolute difference between probabilities of the reloaded export and of the Keras model.

    Raises:
        InputError: If the version exists, or the difference is above `TOLERANCE`.
    """
    if version_dir.exists():
        raise InputError(f"{version_dir}: exists; versions are never overwritten, give another --version")
    temporary = version_dir.with_name(f".tmp-{version_dir.name}-{os.getpid()}")
    try:
        _archive(model, classifier).write_out(str(temporary), verbose=False)
        labels = json.dumps(directory.label_map.to_dict(), indent=2)
        write_atomic(temporary / "assets.extra" / "labels.json", labels.encode())
        difference = difference_of(temporary, model, directory)
        if not difference <= TOLERANCE:
            raise InputError(
                f"the export differs from the Keras model by {difference:.1e}, above {TOLERANCE:.0e}; "
                "nothing was written"
            )
        _sync_tree(temporary)
        temporary.rename(version_dir)
        sync_directory(version_dir.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return difference


def _archive(model: keras.Model, classifier: keras.Model | None) -> keras.export.ExportArchive:
    archive = keras.export.ExportArchive()
    archive.track(model)
    size = model.inputs[0].shape[1]
    image = tf.TensorSpec((None, size, size, 3), tf.float32, name="image")
    label = tf.TensorSpec((None,), tf.int32, name="label")

    # One dictionary of named specifications: everything else renames inputs or loses dtypes.
    @tf.function(input_signature=[{"image": image, "label": label}])
    def serve(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"probability": foreground_probability(model(inputs, training=False))}

    archive.add_endpoint("serving_default", serve)
    if classifier is not None:
        archive.track(classifier)

        @tf.function(input_signature=[{"image": image}])
        def classify(inputs: dict[str, tf.Tensor]) -> dict[str, tf.Tensor]:
            return {"probability": tf.sigmoid(classifier(inputs, training=False)["class_logits"])}

        archive.add_endpoint("classify", classify)
    return archive


def foreground_probability(outputs: dict[str, tf.Tensor]) -> tf.Tensor:
    """Returns softmax foreground of a network's outputs, float32 `[B, S, S]`."""
    return tf.nn.softmax(outputs["mask_logits"])[..., 1]


def difference_of(version_dir: Path, model: keras.Model, directory: ModelDir) -> float:
    """Runs a SavedModel and the Keras model on the same noise, one image a label, up to 4.

    Returns:
        Largest absolute difference of their probabilities.
    """
    size, count = directory.config.image_size, min(4, directory.label_map.num_labels)
    image = np.random.default_rng(0).uniform(0, 255, (count, size, size, 3)).astype(np.float32)
    label = np.linspace(1, directory.label_map.num_labels, count).astype(np.int32)
    loaded = tf.saved_model.load(str(version_dir)).signatures["serving_default"]
    exported = loaded(image=tf.constant(image), label=tf.constant(label))["probability"]
    ours = foreground_probability(model({"image": image, "label": label}, training=False))
    return float(np.max(np.abs(exported.numpy() - ours.numpy())))


def next_version(output_dir: Path) -> int:
    """Returns one more than the highest version in a directory, 1 for an empty one."""
    names = [path.name for path in output_dir.iterdir()] if output_dir.is_dir() else []
    return max((int(name) for name in names if name.isdigit()), default=0) + 1


def _sync_tree(root: Path) -> None:
    for path in [*root.rglob("*"), root]:
        if path.is_dir():
            sync_directory(path)
        else:
            with path.open("rb") as file:
                os.fsync(file.fileno())


if __name__ == "__main__":
    sys.exit(main())
