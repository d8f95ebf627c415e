"""The networks behind a `Segmenter`: Keras models, or a SavedModel that needs no code of ours.

All answer the same two questions about batches, and are traced once whatever the batch size:
which labels does an image show, and where is a label in it?
"""

import json
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
import tensorflow as tf

from tfseg.errors import InputError
from tfseg.inference.preprocessing import ImageFit
from tfseg.model_dir import Export


class PairMaps(NamedTuple):
    """Where labels are in images, for P pairs of an image and a label, at the network's resolution.

    Attributes:
        probability: float32 `[P, S, S]`, foreground of the plain two-way softmax.
        attention: float32 `[P, h, w]`, a of equation (3); None when the network does not tell.
        densified: float32 `[P, h, w]`, s of equation (7); None when the network does not tell.
    """

    probability: np.ndarray
    attention: np.ndarray | None = None
    densified: np.ndarray | None = None


class Network(Protocol):
    """What a `Segmenter` asks of a network.

    ```python
    class Everywhere:
        image_size, image_fit, can_classify = 320, "pad", False

        def encode(self, images):
            return images

        def locate(self, encoded, index, labels):
            return PairMaps(np.ones((len(labels), 320, 320), np.float32))
    ```

    Attributes:
        image_size: S.
        image_fit: How an image becomes its square, see `ModelConfig`.
        can_classify: Whether `classify` works.
    """

    image_size: int
    image_fit: ImageFit
    can_classify: bool

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the probability of each label, float32 `[B, L]`, for uint8 `[B, S, S, 3]`."""

    def encode(self, images: np.ndarray) -> Any:
        """Returns whatever `locate` wants to know of a batch of images, uint8 `[B, S, S, 3]`."""

    def locate(self, encoded: Any, index: np.ndarray, labels: np.ndarray) -> PairMaps:
        """Answers for each pair of image `index[i]` of `encoded` and label `labels[i]`, int32 `[P]`."""


class KerasClassifier:
    """A whole-image classifier of `tfseg.models`.

    ```python
    KerasClassifier(read_model_dir("model").load("classifier")).classify(squares)
    ```

    Args:
        model: From `build_classifier`.

    Attributes:
        image_size: S.
    """

    def __init__(self, model: keras.Model) -> None:
        self._model = model
        self.image_size: int = model.inputs[0].shape[1]
        image = tf.TensorSpec([None, self.image_size, self.image_size, 3], tf.uint8)
        self._classify = tf.function(self._classify_step, input_signature=[image])

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the probability of each label; see `Network`."""
        return self._classify(images).numpy()

    def _classify_step(self, images: tf.Tensor) -> tf.Tensor:
        outputs = self._model({"image": tf.cast(images, tf.float32)}, training=False)
        return tf.sigmoid(tf.cast(outputs["class_logits"], tf.float32))


class KerasNetwork:
    """A segmentation network of `tfseg.models`, taken apart so that an image is encoded once.

    ```python
    network = KerasNetwork(read_model_dir("model").load("joint"))
    network.locate(network.encode(squares), np.array([0, 0]), np.array([3, 7])).probability
    ```

    Args:
        model: From `build_transfernet` or a baseline.
        classifier: From `build_classifier`; None when there is none.
        decoder_input: As in the model's `ModelConfig`.
        image_fit: As in the model's `ModelConfig`.
    """

    def __init__(
        self,
        model: keras.Model,
        classifier: keras.Model | None = None,
        decoder_input: str = "densified",
        image_fit: ImageFit = "pad",
    ) -> None:
        self.image_fit: ImageFit = image_fit
        self._encoder = model.get_layer("encoder")
        self._attention = model.get_layer("attention")
        self._decoder = model.get_layer("decoder")
        self._classifier = None if classifier is None else KerasClassifier(classifier)
        self._decoder_input = decoder_input
        self._num_labels: int = model.output["class_logits"].shape[-1]
        self.image_size: int = model.inputs[0].shape[1]
        self.can_classify = classifier is not None
        image = tf.TensorSpec([None, *self._encoder.inputs[0].shape[1:]], tf.uint8)
        encoded = {
            name: tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)
            for name, tensor in self._encoder.output.items()
        }
        pairs = tf.TensorSpec([None], tf.int32)
        # Signatures of any batch size: one trace each, however many images and labels come.
        self._encode = tf.function(self._encode_step, input_signature=[image])
        self._locate = tf.function(self._locate_step, input_signature=[encoded, pairs, pairs])
        self._attend = tf.function(self._attend_step, input_signature=[encoded, pairs, pairs])
        maps = tf.TensorSpec([None, *self._decoder.input["densified"].shape[1:]], tf.float32)
        self._decode = tf.function(self._decode_step, input_signature=[encoded, pairs, maps])

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the probability of each label; see `Network`."""
        return self._classifier.classify(images)

    def encode(self, images: np.ndarray) -> dict[str, tf.Tensor]:
        """Returns features and switches; see `Network`."""
        return self._encode(images)

    def locate(self, encoded: dict[str, tf.Tensor], index: np.ndarray, labels: np.ndarray) -> PairMaps:
        """Attends and decodes pairs as one batch; see `Network`.

        Raises:
            InputError: If a label is not in 1 to L.
        """
        labels = _require_ids(labels, self._num_labels)
        outputs = self._locate(encoded, np.asarray(index, np.int32), labels)
        return PairMaps(*(output.numpy() for output in outputs))

    def decoder_maps(
        self, encoded: dict[str, tf.Tensor], index: np.ndarray, labels: np.ndarray
    ) -> np.ndarray:
        """Returns what `locate` decodes of each pair, float32 `[P, h, w]`.

        Raises:
            InputError: If a label is not in 1 to L.
        """
        labels = _require_ids(labels, self._num_labels)
        attended = self._attend(encoded, np.asarray(index, np.int32), labels)
        return tf.cast(attended[self._decoder_input], tf.float32).numpy()

    def decode(self, encoded: dict[str, tf.Tensor], index: np.ndarray, maps: np.ndarray) -> np.ndarray:
        """Decodes any maps with the switches of images, as `locate` decodes its own.

        Args:
            encoded: From `encode`.
            index: int `[P]`, images of `encoded`.
            maps: float32 `[P, h, w]`.

        Returns:
            float32 `[P, S, S]`, foreground of the plain two-way softmax.
        """
        return self._decode(encoded, np.asarray(index, np.int32), np.asarray(maps, np.float32)).numpy()

    def _encode_step(self, images: tf.Tensor) -> dict[str, tf.Tensor]:
        return self._encoder(tf.cast(images, tf.float32), training=False)

    def _locate_step(
        self, encoded: dict[str, tf.Tensor], index: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        attended = self._attend_step(encoded, index, labels)
        probability = self._decode_step(encoded, index, attended[self._decoder_input])
        attention = tf.cast(attended["attention"], tf.float32)
        return probability, attention, tf.cast(attended["densified"], tf.float32)

    def _attend_step(
        self, encoded: dict[str, tf.Tensor], index: tf.Tensor, labels: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        features = tf.gather(encoded["features"], index)
        return self._attention({"features": features, "label": labels}, training=False)

    def _decode_step(self, encoded: dict[str, tf.Tensor], index: tf.Tensor, maps: tf.Tensor) -> tf.Tensor:
        switches = {name: tf.gather(t, index) for name, t in encoded.items() if name != "features"}
        logits = self._decoder({"densified": maps, **switches}, training=False)
        return tf.nn.softmax(tf.cast(logits, tf.float32))[..., 1]


class SavedModelNetwork:
    """An exported model: `serving_default` locates, the optional signature `classify` names labels.

    ```python
    network = SavedModelNetwork("runs/demo/export/1")
    network.locate(squares, np.array([0, 0]), np.array([3, 7])).probability
    ```

    Args:
        path: The version directory that holds `saved_model.pb`.

    Raises:
        InputError: If it cannot be loaded or lacks the signature.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._loaded = tf.saved_model.load(str(path))
        except Exception as error:  # TensorFlow raises many kinds for damaged files.
            raise InputError(f"{path}: cannot be loaded as a SavedModel ({error})") from error
        signatures = self._loaded.signatures
        if "serving_default" not in signatures:
            raise InputError(
                f"{path}: has no signature serving_default of (image, label); "
                f"it has: {', '.join(signatures) or 'none'}"
            )
        self._serve = signatures["serving_default"]
        self._classify = signatures.get("classify")
        self.can_classify = self._classify is not None
        expected = self._serve.structured_input_signature[1]
        if set(expected) != {"image", "label"} or expected["image"].shape.rank != 4:
            raise InputError(
                f"{path}: serving_default takes {sorted(expected)}; needed are image [B, S, S, 3] "
                "and label [B]"
            )
        self._dtype = expected["image"].dtype
        self._locate_several = signatures.get("labels")
        # The first exports took images of the network's size alone, and lacked a description.
        size = expected["image"].shape[1]
        described = _described(Path(path)) if size is None else {"image_size": size, "image_fit": "pad"}
        self.image_size: int = described["image_size"]
        self.image_fit: ImageFit = described["image_fit"]
        self._num_labels = Export(Path(path)).label_map.num_labels

    def classify(self, images: np.ndarray) -> np.ndarray:
        """Returns the probability of each label; see `Network`."""
        return self._classify(image=tf.cast(images, self._dtype))["probability"].numpy()

    def encode(self, images: np.ndarray) -> np.ndarray:
        """Returns the images: an export does not take features."""
        return images

    def locate(self, encoded: np.ndarray, index: np.ndarray, labels: np.ndarray) -> PairMaps:
        """Runs `labels`, which encodes an image once, or `serving_default`; see `Network`.

        Raises:
            InputError: If a label is not in 1 to L.
        """
        labels = _require_ids(labels, self._num_labels)
        if self._locate_several is None:
            images = tf.cast(encoded[index], self._dtype)
            return PairMaps(self._serve(image=images, label=tf.constant(labels))["probability"].numpy())
        rows, row_of = np.unique(index, return_inverse=True)
        column_of = [int((row_of[:i] == row).sum()) for i, row in enumerate(row_of)]
        asked = np.full((len(rows), max(column_of) + 1), -1, np.int32)
        asked[row_of, column_of] = labels
        images = tf.constant(encoded[rows], tf.uint8)
        found = self._locate_several(image=images, labels=tf.constant(asked))["probability"].numpy()
        return PairMaps(found[row_of, column_of])


def _described(path: Path) -> dict[str, Any]:
    """Reads what an export tells of its network's square: `image_size` and `image_fit`."""
    file = path / "assets.extra" / "export.json"
    try:
        content = json.loads(file.read_text())
        return {name: content[name] for name in ("image_size", "image_fit")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{file}: does not tell how the network sees an image ({error})") from error


def _require_ids(labels: np.ndarray, num_labels: int) -> np.ndarray:
    """Refuses ids of no label, for which a network gives NaN."""
    labels = np.asarray(labels, np.int32)
    strange = labels[(labels < 1) | (labels > num_labels)]
    if strange.size:
        raise InputError(f"label id {strange[0]}: the network has the ids 1 to {num_labels}")
    return labels
