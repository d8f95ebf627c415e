"""How good is the network while it trains? Figures on images that are not trained on."""

import dataclasses
import tempfile
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfseg.config import CLASSIFIER_STAGES, ModelConfig
from tfseg.data.bad_records import BadRecords, OnBadRecord
from tfseg.data.records import Split
from tfseg.errors import InputError
from tfseg.evaluation.label_quality import evaluate_labels, record_squares
from tfseg.evaluation.masks import evaluate_masks
from tfseg.evaluation.settings import Settings
from tfseg.inference.networks import KerasNetwork
from tfseg.inference.segmenter import Segmenter


class Validation:
    """Evaluates the network of a running stage on the first records of a split.

    | stage | split with masks | split without |
    | --- | --- | --- |
    | encoder, classifier | `map`, `f1` | the same |
    | attention | `attention_miou` (best threshold), `on_object`, `same_position` | `label_accuracy` |
    | joint | `miou` | `label_accuracy` |

    Masks are found for the ground truth's labels. The first figure is the one that the best checkpoint is
    chosen by.

    ```python
    validation = Validation(network, "joint", config, Split.load("records", "target_dev"), images=100)
    validation.measure()["miou"]
    ```

    Args:
        network: The network that the stage trains.
        stage: Its name.
        config: What the network was built from.
        split: Records of the network's label map.
        images: How many of its first records to take.
        on_bad_record: As the flag of tfseg.train.

    Raises:
        InputError: If the split has no record.
    """

    def __init__(
        self,
        network: keras.Model,
        stage: str,
        config: ModelConfig,
        split: Split,
        images: int,
        on_bad_record: OnBadRecord = "fail",
    ) -> None:
        if not len(split):
            raise InputError(f"--val_split={split.name}: holds no record")
        self._network, self._stage, self._config = network, stage, config
        self._on_bad_record: OnBadRecord = on_bad_record
        self._split = dataclasses.replace(split, infos=split.infos[:images])
        self._has_masks = any(info.has_mask for info in self._split.infos)
        if stage in CLASSIFIER_STAGES:
            return
        if self._has_masks:  # Built once, so that its functions are traced once.
            keras_network = KerasNetwork(network, None, config.decoder_input, config.image_fit)
            self._segmenter = Segmenter(keras_network, split.label_map, label_domain="all")
        self._classify = tf.function(
            lambda image, label: network({"image": image, "label": label}, training=False)["class_logits"]
        )

    def measure(self) -> dict[str, float]:
        """Returns the figures of the stage, 0 to 1; see the class."""
        if self._stage in CLASSIFIER_STAGES:
            quality = evaluate_labels(
                self._network,
                self._split,
                self._split.label_map.ids(self._split.domain),
                image_fit=self._config.image_fit,
                on_bad_record=self._on_bad_record,
            )["label_quality"]
            return {"map": quality["map"] or 0.0, "f1": quality["f1"] or 0.0}
        if not self._has_masks:
            return {"label_accuracy": self._label_accuracy()}
        method = "decoder" if self._stage == "joint" else "attention"
        settings = Settings(labels="ground_truth", method=method, on_bad_record=self._on_bad_record)
        with tempfile.TemporaryDirectory() as folder:
            metrics = evaluate_masks(self._segmenter, self._split, settings, Path(folder))
        if method == "decoder":
            return {"miou": metrics["miou"] or 0.0}
        statistics = metrics["attention_statistics"] or {}
        return {
            "attention_miou": metrics["miou"] or 0.0,
            "on_object": statistics.get("inside") or 0.0,
            "same_position": statistics.get("same_position") or 0.0,
        }

    def _label_accuracy(self) -> float:
        """Share of (image, label) pairs whose label the classification names from z."""
        right, bad_records = [], BadRecords(self._on_bad_record)
        size, fit = self._config.image_size, self._config.image_fit
        for number, square in record_squares(self._split, size, fit, bad_records):
            image = square[None].astype(np.float32)
            for label in self._split.infos[number].labels:
                logits = self._classify(image, np.array([label], np.int32)).numpy()
                right.append(int(logits[0].argmax()) + 1 == label)
        return float(np.mean(right)) if right else 0.0
