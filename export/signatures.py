"""The signatures of an export: from bytes or pixels to probabilities and label maps, all in the graph.

Each takes one dictionary and gives one, holds no XLA and no Python, and refuses what is wrong with an
InvalidArgument that names row, field, value and what is allowed. `export.contract` describes them for people.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tfseg.config import ModelConfig
from tfseg.data.labels import LabelMap
from tfseg.inference.postprocessing import BACKGROUND_FACTOR, THRESHOLD

from . import decoding
from .decoding import Header
from .resampling import MAX_SHRINKAGE, from_square, to_square

Tensors = dict[str, tf.Tensor]
MAX_PROBABILITIES = 2**26
"""Largest number of values in the answer of `labels`: 256 MiB."""
PAIRS_AT_ONCE = 4
"""(image, label) pairs that the decoder takes at once; more would only cost memory."""
PADDING = -1
"""Fills the rows of label ids that are shorter than the longest."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What an export decides for its clients.

    Attributes:
        label_domain: Which labels `segment` may predict: `target`, `source` or `all`.
        label_threshold: Probability from which a label counts as present.
        background_factor: On the background's probability before it is renormalised.
        max_pixels: Largest H x W of an image.
        image_dtype: Dtype of `image` in `serving_default` and `classify`, which existed as float32.
    """

    label_domain: str = "target"
    label_threshold: float = THRESHOLD
    background_factor: float = BACKGROUND_FACTOR
    max_pixels: int = decoding.MAX_PIXELS
    image_dtype: str = "float32"


class Endpoints:
    """The functions behind the signatures.

    Args:
        model: Segmentation network, float32.
        classifier: Whole-image classifier, float32; None leaves `segment` and `classify` out.
        config: What the model was built from.
        label_map: What the label ids mean.
        options: See there.
        half_weights: (variable, its float16 copy) of both networks; the graph then reads the copies and
            computes in float32. None reads the networks' own.
    """

    def __init__(
        self,
        model: keras.Model,
        classifier: keras.Model | None,
        config: ModelConfig,
        label_map: LabelMap,
        options: Options,
        half_weights: Sequence[tuple[keras.Variable, tf.Variable]] | None = None,
    ) -> None:
        self._encoder = model.get_layer("encoder")
        self._attention = model.get_layer("attention")
        self._decoder = model.get_layer("decoder")
        self._classifier = classifier
        self._decoder_input = config.decoder_input
        self._fit = config.image_fit
        self._label_map = label_map
        self._options = options
        self._half_weights = half_weights
        self._allowed = label_map.allowed_ids(options.label_domain)
        self.size = model.inputs[0].shape[1]
        self.max_side = min(decoding.MAX_SIDE, MAX_SHRINKAGE * self.size)
        squares = tf.TensorSpec((None, self.size, self.size, 3), tf.float32)
        maps = tf.TensorSpec((None, self.size, self.size), tf.float32)
        files, rows = tf.TensorSpec((None,), tf.string), tf.TensorSpec((None,), tf.int32)
        # Traced once for all signatures that call them.
        self._decode_files = _shared(self._decode_files_step, files)
        self._find = _shared(self._find_step, squares, rows)
        self._locate = _shared(self._locate_step, squares, rows, rows)
        self._label_scores = _shared(self._label_scores_step, squares)
        self._masks = _shared(self._masks_step, maps, rows, rows, rows, rows)

    def functions(
        self,
    ) -> dict[str, tuple[tf.types.experimental.PolymorphicFunction, tf.types.experimental.ConcreteFunction]]:
        """Returns the function behind each signature, and its trace that servers see."""
        pixels = tf.TensorSpec((None, None, None, 3), tf.uint8, name="image")
        both = sorted((tf.float32, tf.uint8), key=lambda dtype: dtype.name != self._options.image_dtype)
        either = [tf.TensorSpec(pixels.shape, dtype, name="image") for dtype in both]
        label = tf.TensorSpec((None,), tf.int32, name="label")
        labels = tf.TensorSpec((None, None), tf.int32, name="labels")
        names = tf.TensorSpec((None, None), tf.string, name="labels")
        files = tf.TensorSpec((None,), tf.string, name="image_bytes")
        examples = tf.TensorSpec((None,), tf.string, name="examples")
        traces = {
            "serving_default": (self._serve, [{"image": image, "label": label} for image in either]),
            "pixels": (self._serve, [{"image": pixels, "label": label}]),
            "labels": (self._serve_labels, [{"image": pixels, "labels": labels}]),
            "attention": (self._serve_attention, [{"image": pixels, "label": label}]),
            "bytes": (self._serve_bytes, [{"image_bytes": files, "label": label}]),
            "segment_labels": (self._segment_labels, [{"image_bytes": files, "labels": names}]),
            "examples": (self._serve_examples, [{"examples": examples}]),
        }
        if self._classifier is not None:
            traces["classify"] = (self._classify, [{"image": image} for image in either])
            traces["segment"] = (self._segment, [{"image_bytes": files}])
        functions = {}
        for name, (step, inputs) in traces.items():
            function = tf.function(step, autograph=False)
            traced = [function.get_concrete_function(specification) for specification in inputs]
            functions[name] = function, traced[0]
        return functions

    @contextlib.contextmanager
    def _weights(self) -> Iterator[None]:
        """Lets the networks read the float16 weights, if there are any."""
        if self._half_weights is None:
            yield
            return
        mapping = [(variable, tf.cast(half, tf.float32)) for variable, half in self._half_weights]
        with keras.StatelessScope(state_mapping=mapping):
            yield

    def _serve(self, inputs: Tensors) -> Tensors:
        """Where is one label in each image?"""
        label = self._checked_labels(inputs["label"], inputs["image"])
        squares, height, width = self._squares(inputs["image"])
        probability = self._find(squares, label)
        found = self._restore(self._halve(probability), height, width) > 0.5
        mask = tf.where(found, tf.cast(label, tf.uint8)[:, None, None], tf.constant(0, tf.uint8))
        return {"probability": self._restore(probability, height, width), "mask": mask}

    def _serve_labels(self, inputs: Tensors) -> Tensors:
        """Where are several labels in each image, and which wins at each pixel? Images are encoded once."""
        image, labels = inputs["image"], inputs["labels"]
        labels = self._checked_labels(labels, image, padded=True)
        shape = tf.shape(image)
        wanted = tf.concat([tf.shape(labels), shape[1:3]], axis=0)
        with tf.control_dependencies([_require_few(wanted)]):
            squares, height, width = self._squares(image)
        pairs = tf.where(labels != PADDING)
        label = tf.gather_nd(labels, pairs)
        probability = self._locate(squares, tf.cast(pairs[:, 0], tf.int32), label)
        wide = tf.cast(wanted, tf.int64)
        restored = tf.scatter_nd(pairs, self._restore(probability, height, width), wide)
        halved = self._restore(self._halve(probability), height, width)
        scores = tf.scatter_nd(pairs, tf.where(halved > 0.5, halved, 0.0), wide)
        # A background of score 0 in front wins where all others are 0, and padding never does.
        scores = tf.pad(scores, ((0, 0), (1, 0), (0, 0), (0, 0)))
        ids = tf.pad(tf.maximum(labels, 0), ((0, 0), (1, 0)))
        winners = tf.argmax(scores, axis=1, output_type=tf.int32)
        label_map = tf.gather(ids, tf.reshape(winners, (shape[0], -1)), batch_dims=1)
        label_map = tf.reshape(tf.cast(label_map, tf.uint8), tf.shape(winners))
        return {"probability": restored, "label_map": label_map}

    def _serve_attention(self, inputs: Tensors) -> Tensors:
        label = self._checked_labels(inputs["label"], inputs["image"])
        squares, _, _ = self._squares(inputs["image"])
        with self._weights():
            features = self._encoder(squares, training=False)["features"]
            located = self._attention({"features": features, "label": label}, training=False)
        return {name: located[name] for name in ("attention", "densified")}

    def _serve_bytes(self, inputs: Tensors) -> Tensors:
        files = inputs["image_bytes"]
        label = self._checked_labels(inputs["label"], files)
        squares, heights, widths = self._decode_files(files)
        count = tf.shape(files)[0]
        probability = self._locate(squares, tf.range(count), label)
        return {"mask_bytes": self._masks(probability, label, tf.ones_like(label), heights, widths)}

    def _segment(self, inputs: Tensors) -> Tensors:
        squares, heights, widths = self._decode_files(inputs["image_bytes"])
        scores = self._label_scores(squares)
        return self._segment_chosen(squares, heights, widths, self._chosen(scores), scores)

    def _segment_labels(self, inputs: Tensors) -> Tensors:
        files, words = inputs["image_bytes"], inputs["labels"]
        with tf.control_dependencies([_require_batch("image_bytes", files)]):
            wanted = self._resolve(words, tf.shape(files)[0])
        squares, heights, widths = self._decode_files(files)
        return self._segment_chosen(squares, heights, widths, wanted, None)

    def _serve_examples(self, inputs: Tensors) -> Tensors:
        """Segments records as `tfrecords` writes them: the labels they list, else those predicted."""
        examples = inputs["examples"]
        rows = tf.strings.as_string(tf.range(tf.shape(examples)[0]))
        features = {
            "image/encoded": tf.io.FixedLenFeature((), tf.string, default_value=""),
            "image/labels": tf.io.VarLenFeature(tf.int64),
        }
        with tf.control_dependencies([_require_batch("examples", examples)]):
            parsed = tf.io.parse_example(examples, features, tf.strings.join(["row ", rows]))
        squares, heights, widths = self._decode_files_step(parsed["image/encoded"], "image/encoded")
        listed = tf.sparse.to_dense(parsed["image/labels"], default_value=PADDING)
        listed = self._checked_labels(tf.cast(listed, tf.int32), examples, "image/labels", padded=True)
        wanted = tf.reduce_any(listed[..., None] == tf.range(1, self._label_map.num_labels + 1), axis=1)
        given = tf.reduce_any(wanted, axis=1, keepdims=True)
        if self._classifier is None:
            problem = "is missing, and the export has no classifier to predict labels"
            with tf.control_dependencies([_require("image/labels", tf.where(given[:, 0], "", problem))]):
                wanted, scores = tf.identity(wanted), None
        else:
            scores = self._label_scores(squares)
            wanted = tf.where(given, wanted, self._chosen(scores))
        answer = self._segment_chosen(squares, heights, widths, wanted, scores)
        # tfx-bsl reads no strings of shape [B].
        return {**answer, "mask_bytes": answer["mask_bytes"][:, None]}

    def _classify(self, inputs: Tensors) -> Tensors:
        squares, _, _ = self._squares(inputs["image"])
        return {"probability": self._label_scores(squares)}

    def _segment_chosen(
        self,
        squares: tf.Tensor,
        heights: tf.Tensor,
        widths: tf.Tensor,
        wanted: tf.Tensor,
        scores: tf.Tensor | None,
    ) -> Tensors:
        """Segments images by the labels that `wanted`, bool `[B, L]`, marks."""
        pairs = tf.where(wanted)
        rows, label = tf.cast(pairs[:, 0], tf.int32), tf.cast(pairs[:, 1], tf.int32) + 1
        counts = tf.reduce_sum(tf.cast(wanted, tf.int32), axis=1)
        probability = self._locate(squares, rows, label)

        def padded(values: tf.Tensor, filling: int | float | str) -> tf.Tensor:
            return tf.RaggedTensor.from_row_lengths(values, counts).to_tensor(filling)

        names = tf.constant([entry.name for entry in self._label_map.labels])
        answer = {
            "labels": padded(label, PADDING),
            "names": padded(tf.gather(names, label - 1), ""),
            "mask_bytes": self._masks(probability, label, counts, heights, widths),
        }
        if self._classifier is not None and scores is not None:
            answer["scores"] = padded(tf.gather_nd(scores, pairs), 0.0)
        return answer

    def _squares(self, image: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Checks pixels and brings them to the network's square; also returns (H, W)."""
        shape = tf.shape(image)
        height, width = shape[1], shape[2]
        size = tf.strings.join([tf.strings.as_string(width), "x", tf.strings.as_string(height)])
        limits = (
            f" pixels; allowed are 1x1 to {self._options.max_pixels} in all and {self.max_side} along a side"
        )
        pixels = tf.cast(height, tf.int64) * tf.cast(width, tf.int64)
        fits = (pixels >= 1) & (pixels <= self._options.max_pixels)
        fits &= tf.maximum(height, width) <= self.max_side
        checks = [
            _require_batch("image", image),
            tf.debugging.Assert(fits, [tf.strings.join(["image: rows have ", size, limits])]),
        ]
        if image.dtype != tf.uint8:
            checks.append(_require("image", _value_problems(image)))
        with tf.control_dependencies(checks):
            return to_square(tf.cast(image, tf.float32), self.size, self._fit), height, width

    def _decode_files_step(
        self, files: tf.Tensor, field: str = "image_bytes"
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Decodes files `[B]` to squares `[B, S, S, 3]`; also returns their heights and widths, `[B]`."""
        with tf.control_dependencies([_require_batch(field, files)]):
            headers = decoding.read_headers(files)
        problems = decoding.header_problems(files, headers, self._options.max_pixels, self.max_side)
        with tf.control_dependencies([_require(field, problems)]):
            files = tf.identity(files)

        def prepare(row: tf.Tensor, file: tf.Tensor, *header: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = tf.cast(decoding.decode(file, Header(*header)), tf.float32)
            return row, to_square(image[None], self.size, self._fit)[0]

        def collect(state: tuple, element: tuple) -> tuple:
            (squares, done), (row, square) = state, element
            at = [[row]]
            return tf.tensor_scatter_nd_update(squares, at, [square]), tf.tensor_scatter_nd_update(
                done, at, [True]
            )

        # A decoder fails without saying in which row. Only a data set can go on after that.
        count = tf.shape(files)[0]
        rows = tf.data.Dataset.from_tensor_slices((tf.range(count), files, *headers))
        # Else tf.data rewrites its graph anew at each request, which takes 0.14 s of a processor.
        plain = tf.data.Options()
        plain.autotune.enabled = False
        plain.experimental_optimization.apply_default_optimizations = False
        rows = rows.with_options(plain)
        start = (tf.zeros((count, self.size, self.size, 3)), tf.zeros((count,), tf.bool))
        decoded = rows.map(prepare).ignore_errors(log_warning=False)
        squares, done = decoded.reduce(start, collect)
        cut = tf.strings.join([decoding.describe(headers), ": is damaged or cut short, no decoder reads it"])
        with tf.control_dependencies([_require(field, tf.where(done, "", cut))]):
            heights, widths = decoding.upright_size(headers)
            return tf.ensure_shape(squares, (None, self.size, self.size, 3)), heights, widths

    def _checked_labels(
        self, labels: tf.Tensor, images: tf.Tensor, field: str | None = None, padded: bool = False
    ) -> tf.Tensor:
        """Returns label ids `[B]` or `[B, K]` after checking them against the images' number and the map."""
        field = field or ("labels" if padded else "label")
        limit = self._label_map.num_labels
        allowed = f"; allowed are 1 to {limit}" + (f", and {PADDING} for none" if padded else "")
        wrong = (labels < 1) | (labels > limit)
        if padded:
            wrong &= labels != PADDING
        words = tf.where(wrong, tf.strings.join([tf.strings.as_string(labels), allowed]), "")
        if padded:
            words = _first_word(words)
        with tf.control_dependencies([_require_as_many(field, labels, images), _require(field, words)]):
            return tf.identity(labels)

    def _resolve(self, words: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Turns names, aliases and ids as text, string `[B, K]`, into bool `[B, L]`."""
        labels = self._label_map.labels
        # A name that looks like another label's id means the name.
        known = {str(label.id): label.id for label in labels}
        known |= {word: label.id for label in labels for word in (label.name, *label.aliases)}
        hits = words[..., None] == tf.constant(list(known))
        names = ", ".join(label.name for label in labels)
        allowed = f"; allowed are the ids 1 to {len(labels)} and the names {names}"
        wrong = ~tf.reduce_any(hits, axis=-1) & (words != "")
        problems = _first_word(tf.where(wrong, tf.strings.join(["no label is called ", words, allowed]), ""))
        empty = ~tf.reduce_any(words != "", axis=1)
        problems = tf.where(empty, "holds no label; give one or more, or call segment", problems)
        same = tf.debugging.Assert(
            tf.equal(tf.shape(words)[0], count),
            ["labels: as many rows as image_bytes has are allowed; given are", tf.shape(words)[0]],
        )
        with tf.control_dependencies([same, _require("labels", problems)]):
            ids = tf.reduce_max(tf.where(hits, tf.constant(list(known.values())), 0), axis=-1)
        return tf.reduce_any(ids[..., None] == tf.range(1, self._label_map.num_labels + 1), axis=1)

    def _label_scores_step(self, squares: tf.Tensor) -> tf.Tensor:
        with self._weights():
            return tf.sigmoid(self._classifier({"image": squares}, training=False)["class_logits"])

    def _chosen(self, scores: tf.Tensor) -> tf.Tensor:
        """`tfseg.inference.postprocessing.predicted_labels` as bool `[B, L]`."""
        allowed = np.isin(np.arange(1, self._label_map.num_labels + 1), self._allowed)
        above = (scores >= self._options.label_threshold) & allowed
        best = tf.argmax(tf.where(allowed, scores, -1.0), axis=1)
        best = tf.one_hot(best, self._label_map.num_labels, on_value=True, off_value=False)
        return tf.where(tf.reduce_any(above, axis=1, keepdims=True), above, best)

    def _decode(self, encoded: Tensors, label: tf.Tensor) -> tf.Tensor:
        """Returns the plain softmax foreground of one label per encoded image, `[P, S, S]`."""
        switches = {name: tensor for name, tensor in encoded.items() if name != "features"}
        located = self._attention({"features": encoded["features"], "label": label}, training=False)
        logits = self._decoder({"densified": located[self._decoder_input], **switches}, training=False)
        return tf.nn.softmax(logits)[..., 1]

    def _find_step(self, squares: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        """Returns the plain softmax foreground of one label per image, `[B, S, S]`."""
        with self._weights():
            return self._decode(self._encoder(squares, training=False), label)

    def _locate_step(self, squares: tf.Tensor, index: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        """As `_find`, for pairs of image `index[i]` and `label[i]`, a few at a time."""
        with self._weights():
            return self._locate_encoded(self._encoder(squares, training=False), index, label)

    def _locate_encoded(self, encoded: Tensors, index: tf.Tensor, label: tf.Tensor) -> tf.Tensor:
        count = tf.shape(label)[0]
        chunks = (count + PAIRS_AT_ONCE - 1) // PAIRS_AT_ONCE

        def step(chunk: tf.Tensor, found: tf.TensorArray) -> tuple[tf.Tensor, tf.TensorArray]:
            pairs = slice(chunk * PAIRS_AT_ONCE, (chunk + 1) * PAIRS_AT_ONCE)
            gathered = {name: tf.gather(tensor, index[pairs]) for name, tensor in encoded.items()}
            return chunk + 1, found.write(chunk, self._decode(gathered, label[pairs]))

        found = tf.TensorArray(
            tf.float32, chunks, infer_shape=False, element_shape=(None, self.size, self.size)
        )
        _, found = tf.while_loop(lambda chunk, _: chunk < chunks, step, (0, found), parallel_iterations=1)
        return tf.ensure_shape(found.concat(), (None, self.size, self.size))

    def _halve(self, probability: tf.Tensor) -> tf.Tensor:
        return probability / (probability + self._options.background_factor * (1.0 - probability))

    def _restore(self, probability: tf.Tensor, height: tf.Tensor, width: tf.Tensor) -> tf.Tensor:
        return tf.clip_by_value(from_square(probability, height, width, self._fit), 0.0, 1.0)

    def _masks_step(
        self,
        probability: tf.Tensor,
        label: tf.Tensor,
        counts: tf.Tensor,
        heights: tf.Tensor,
        widths: tf.Tensor,
    ) -> tf.Tensor:
        """Merges each row's labels to a label map of its own size, PNG `[B]`; one map at a time in memory."""
        halved, ends = self._halve(probability), tf.cumsum(counts)
        ids = tf.cast(label, tf.uint8)

        def mask(row: tuple[tf.Tensor, ...]) -> tf.Tensor:
            count, end, height, width = row

            def step(pair: tf.Tensor, best: tf.Tensor, winner: tf.Tensor) -> tuple[tf.Tensor, ...]:
                score = self._restore(halved[pair : pair + 1], height, width)[0]
                better = (score > 0.5) & (score > best)
                return pair + 1, tf.where(better, score, best), tf.where(better, ids[pair], winner)

            shape = tf.stack([height, width])
            start = (end - count, tf.zeros(shape), tf.zeros(shape, tf.uint8))
            _, _, winner = tf.while_loop(lambda pair, *_: pair < end, step, start, parallel_iterations=1)
            return tf.io.encode_png(winner[..., None])

        rows = (counts, ends, heights, widths)
        return tf.map_fn(mask, rows, fn_output_signature=tf.TensorSpec((), tf.string))


def _shared(
    step: Callable[..., Any], *specifications: tf.TensorSpec
) -> tf.types.experimental.PolymorphicFunction:
    return tf.function(step, input_signature=specifications, autograph=False)


def _require(field: str, problems: tf.Tensor) -> tf.Operation:
    """Asserts that all of `problems`, string `[B]`, are empty; else tells row, field and the first one."""
    wrong = tf.strings.length(problems) > 0
    row = tf.argmax(tf.concat([wrong, [True]], axis=0))
    problem = tf.gather(tf.concat([problems, [""]], axis=0), row)
    words = tf.strings.join(["row ", tf.strings.as_string(row), f": {field}: ", problem])
    return tf.debugging.Assert(~tf.reduce_any(wrong), [words])


def _require_batch(field: str, rows: tf.Tensor) -> tf.Operation:
    return tf.debugging.Assert(tf.shape(rows)[0] > 0, [f"{field}: has 0 rows; allowed are 1 and more"])


def _require_as_many(field: str, labels: tf.Tensor, images: tf.Tensor) -> tf.Operation:
    given, needed = tf.shape(labels)[0], tf.shape(images)[0]
    words = [f"{field}: has ", tf.strings.as_string(given), " rows for ", tf.strings.as_string(needed)]
    return tf.debugging.Assert(
        tf.equal(given, needed), [tf.strings.join([*words, " images; allowed is one each"])]
    )


def _require_few(wanted: tf.Tensor) -> tf.Operation:
    number = tf.reduce_prod(tf.cast(wanted, tf.int64))
    words = [
        "labels: ",
        tf.strings.as_string(number),
        " probabilities are asked for, B x K x H x W; allowed are ",
    ]
    return tf.debugging.Assert(
        number <= MAX_PROBABILITIES,
        [tf.strings.join([*words, f"{MAX_PROBABILITIES}; call segment_labels for the label map alone"])],
    )


def _first_word(words: tf.Tensor) -> tf.Tensor:
    """Returns the first word of each row of `[B, K]` that is not empty, or an empty one."""
    words = tf.pad(words, ((0, 0), (0, 1)), constant_values="")
    first = tf.argmax(tf.strings.length(words) > 0, axis=1)
    return tf.gather(words, first, batch_dims=1)


def _value_problems(image: tf.Tensor) -> tf.Tensor:
    low, high = (reduce(image, axis=(1, 2, 3)) for reduce in (tf.reduce_min, tf.reduce_max))
    finite = tf.reduce_all(tf.math.is_finite(image), axis=(1, 2, 3))
    span = tf.strings.join(
        ["has values from ", tf.strings.as_string(low), " to ", tf.strings.as_string(high)]
    )
    words = tf.where(finite, span, "has values that are NaN or infinite")
    words = tf.strings.join([words, "; allowed are 0 to 255"])
    return tf.where(finite & (low >= 0) & (high <= 255), "", words)
