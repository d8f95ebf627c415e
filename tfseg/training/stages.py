"""The stages of training: what is trained, on which loss, and which network starts it (SPEC 6).

| stage | network | trained | loss |
| --- | --- | --- | --- |
| encoder | classifier | all of it | multi-label, both domains ("stage 0" of the paper) |
| classifier | classifier | all of it | multi-label, both domains |
| attention | segmentation | attention, classification head | equation (6) |
| joint | segmentation | the same, and the decoder | equation (9) |

A stage tells the update (`tfseg.training.step`) what to differentiate:

- `trained`: the variables;
- `gradient_masks`: which rows of them, where it is not all (`tfseg.adapt` trains those of new categories);
- `encode`: what the frozen part of the network makes of an example, once an update;
- `embed`: the one dense layer, if any, so large that its gradient is formed once an update;
- `losses`: everything behind.
"""

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any, Literal

import keras
import numpy as np
from keras import KerasTensor, ops

from tfseg.losses import (
    IGNORE_LABEL,
    attention_cross_entropy,
    label_cross_entropy,
    mask_cross_entropy,
    mean_over_valid,
    multi_label_cross_entropy,
    position_log_odds,
    presence_cross_entropy,
)

ATTENTION_SUMS = "attention/"
"""Before the names of the arrays of `attention_sums`, which stand among the losses."""

_LABEL_AXES = {
    "cls_embed/kernel": 0,
    "att_query/kernel": 0,
    "cls_score/kernel": -1,
    "cls_score/bias": -1,
    "score/kernel": -1,
    "score/bias": -1,
}
"""Variables with a row for each label, by layer and name: where the rows lie."""

Examples = dict[str, KerasTensor]
Losses = dict[str, KerasTensor]


@dataclasses.dataclass(frozen=True)
class Normalization:
    """What the sums of a micro-batch are divided by.

    Attributes:
        pairs: Pairs of the global batch.
        valid_pixels: Pixels of the global batch that are not ignored, a float32 scalar.
        micro_batches: Decoded micro-batches of the global batch.
    """

    pairs: int
    valid_pixels: KerasTensor
    micro_batches: int


class MultiLabelStage:
    """Stages `encoder` and `classifier`: which labels does the image hold?

    Args:
        classifier: What `build_classifier` returned.
        known_labels: For each domain, the ids of the labels whose presence and absence its records state
            (`Split.known_labels`); the others do not enter the loss of its images.
        frozen_blocks: The encoder's first blocks that keep their weights, and need no backward pass.
        label_loss: `multi_label`, a sigmoid for each label; or `softmax` over the label of the pair, as the
            paper says ("multi-class classification"), which trains an encoder in fewer updates.
        first_label: Only rows of the labels from this id on are trained; 1 trains the whole network.
    """

    def __init__(
        self,
        classifier: keras.Model,
        known_labels: Mapping[str, Collection[int]],
        frozen_blocks: int = 0,
        label_loss: Literal["multi_label", "softmax"] = "multi_label",
        first_label: int = 1,
    ) -> None:
        self._label_loss = label_loss
        self.model = classifier
        frozen = {
            id(weight)
            for layer in classifier.get_layer("encoder").layers
            if any(layer.name.startswith(f"conv{block}_") for block in range(1, frozen_blocks + 1))
            for weight in layer.weights
        }
        trained = [weight for weight in classifier.trainable_variables if id(weight) not in frozen]
        self.trained, self.gradient_masks = _rows_from(first_label, trained)
        self.embed: keras.layers.Dense | None = None
        self.decoded_domains: frozenset[str] = frozenset()
        num_labels = classifier.output["class_logits"].shape[-1]
        self._known = {
            domain: [float(i in known) for i in range(1, num_labels + 1)]
            for domain, known in known_labels.items()
        }

    def encoded_dtypes(self, domain: str) -> dict[str, str]:
        """Returns nothing: no part of the network is frozen, and there is no `encode`."""
        del domain
        return {}

    def losses(self, examples: Examples, domain: str, norm: Normalization) -> Losses:
        """Returns the micro-batch's share of the global loss, and what to show."""
        logits = self.model({"image": examples["image"]}, training=True)["class_logits"]
        if self._label_loss == "softmax":
            loss = ops.sum(label_cross_entropy(examples["label"], logits)) / norm.pairs
            right = ops.equal(ops.cast(ops.argmax(logits, -1), "int32") + 1, examples["label"])
            return {"loss": loss, "label_accuracy": ops.sum(ops.cast(right, "float32")) / norm.pairs}
        known = ops.broadcast_to(ops.convert_to_tensor(self._known[domain]), ops.shape(logits))
        loss = ops.sum(multi_label_cross_entropy(examples["present"], known, logits)) / norm.pairs
        right = ops.cast(ops.equal(logits > 0, examples["present"] > 0.5), "float32") * known
        accuracy = ops.sum(ops.sum(right, -1) / ops.sum(known, -1)) / norm.pairs
        return {"loss": loss, "label_accuracy": accuracy}


class SegmentationStage:
    """Stages `attention` and `joint`: equation (6), and (9) = (6) + lambda (8).

    Args:
        model: What `build_transfernet` or a baseline's builder returned.
        joint: Whether the decoder is trained too.
        seg_weight: lambda. 1.0 on the mean over the source pairs is what the authors' weight of 2 on
            every second mini-batch amounts to (SPEC 5).
        decode_target: Whether target pairs are decoded, which only masks among them make worth it.
        mean_per_micro_batch: Whether (8) is averaged over the valid pixels of each micro-batch and then over
            micro-batches, as Caffe does, or over the valid pixels of the whole global batch, which does
            not depend on how the batch is cut.
        first_label: Only rows of the labels from this id on are trained; 1 trains all of the attention.
        num_old: If above 0, the labels behind this id are new to a trained network, and learn where they are
            from image labels (`tfseg.losses.localization`).
    """

    def __init__(
        self,
        model: keras.Model,
        joint: bool,
        seg_weight: float = 1.0,
        decode_target: bool = False,
        mean_per_micro_batch: bool = False,
        first_label: int = 1,
        num_old: int = 0,
    ) -> None:
        self.model = model
        self.seg_weight = seg_weight
        self.mean_per_micro_batch = mean_per_micro_batch
        attention, decoder = model.get_layer("attention"), model.get_layer("decoder")
        # What leads from the attention to the decoder alone is left out of `_classify`: DecoupledNet's batch
        # norm must not learn statistics of pairs that are never decoded.
        needed = {name: attention.output[name] for name in ("attention", "class_logits")}
        ids = {id(v) for v in keras.Model(attention.input, needed).trainable_variables}
        self.trained, self.gradient_masks = _rows_from(first_label, attention.trainable_variables)
        self.classified = [variable for variable in self.trained if id(variable) in ids]
        self.decoded_domains: frozenset[str] = frozenset()
        if joint:
            self.trained = self.trained + decoder.trainable_variables
            self.decoded_domains = frozenset({"source", "target"} if decode_target else {"source"})
        self._encoder = model.get_layer("encoder")
        trained = {id(variable) for variable in self.trained}
        self.embed = next(
            (x for x in attention.layers if x.name == "feat_embed" and id(x.kernel) in trained), None
        )
        self._flatten = self.embed and keras.Model(attention.input["features"], self.embed.input)
        self._attend = _behind(self.embed, attention, attention.output)
        self._classify = _behind(self.embed, attention, needed)
        self._decode = _behind_attention(model)
        self._num_old = num_old
        self._classify_positions = _positions_classifier(attention) if num_old else None

    def encoded_dtypes(self, domain: str) -> dict[str, str]:
        """Returns the names and dtypes of what `encode` gives."""
        decoded = domain in self.decoded_domains
        return {name: t.dtype for name, t in self._encoder.output.items() if decoded or name == "features"}

    def encode(self, examples: Examples, domain: str) -> Examples:
        """Returns what is needed of the frozen encoder: the features, and switches of what is decoded."""
        encoded = self._encoder(examples["image"], training=True)
        return {name: encoded[name] for name in self.encoded_dtypes(domain)}

    def flatten(self, features: KerasTensor) -> KerasTensor:
        """Returns the input of `embed`, `[B, h w D]`, of features `[B, h, w, D]`."""
        return self._flatten(features)

    def losses(self, examples: Examples, domain: str, norm: Normalization) -> Losses:
        """Returns the micro-batch's share of the global losses, and what to show.

        Args:
            examples: `image`, `label`, `mask`, what `encode` gave, and `embedded`, the output of `embed`.
            domain: Of the examples.
            norm: What sums are divided by.
        """
        decoded = domain in self.decoded_domains
        names = ("features", "label", "embedded") if self.embed else ("features", "label")
        inputs = [examples[name] for name in names]
        located = (self._attend if decoded else self._classify)(inputs, training=True)
        logits = located["class_logits"]
        cls_loss = ops.sum(label_cross_entropy(examples["label"], logits)) / norm.pairs
        right = ops.equal(ops.cast(ops.argmax(logits, -1), "int32") + 1, examples["label"])
        losses = {
            "loss": cls_loss,
            "cls_loss": cls_loss,
            "cls_accuracy": ops.sum(ops.cast(right, "float32")) / norm.pairs,
        }
        if decoded:
            switches = [examples[name] for name in _switch_names(self.model)]
            maps = [located["attention"], located["densified"]]
            mask_logits = self._decode([*maps, *switches], training=True)
            seg_sum, valid = mask_cross_entropy(examples["mask"], mask_logits)
            if self.mean_per_micro_batch:
                losses["seg_loss"] = mean_over_valid(seg_sum, valid) / norm.micro_batches
            else:
                losses["seg_loss"] = mean_over_valid(seg_sum, norm.valid_pixels)
            losses["loss"] = cls_loss + self.seg_weight * losses["seg_loss"]
        if self._classify_positions:
            found = self._localization_losses(examples, located["attention"])
            for name, values in found.items():
                losses[name] = ops.sum(values) / norm.pairs
                losses["loss"] += losses[name]
        return {**losses, **attention_sums(examples, located["attention"], logits.shape[-1])}

    def _localization_losses(self, examples: Examples, attention: KerasTensor) -> Losses:
        logits = self._classify_positions(examples["features"], training=True)
        log_odds = position_log_odds(logits, self._num_old)
        present = examples["present"][:, self._num_old :]
        follow = attention_cross_entropy(log_odds, examples["label"], self._num_old, attention)
        return {"presence_loss": presence_cross_entropy(log_odds, present), "attention_loss": follow}


def attention_sums(examples: Examples, attention: KerasTensor, num_labels: int) -> dict[str, KerasTensor]:
    """Sums what `tfseg.evaluation.attention_statistics` asks of the attention of a micro-batch.

    A position is padding where the image is black throughout: padding is, and no place of a photograph.

    Args:
        examples: `image` `[B, S, S, 3]`, `label` `[B]` and binary `mask` `[B, S, S]`.
        attention: `[B, h, w]`, each map with the sum 1.
        num_labels: L.

    Returns:
        The arrays of `AttentionSums` as float32, by the names of its fields behind `attention/`.
    """
    attention = ops.cast(ops.stop_gradient(attention), "float32")
    _, height, width = attention.shape
    size = examples["image"].shape[1]
    if size % height or size % width:  # A baseline's map need not divide the image.
        return {}
    cells = (-1, height, size // height, width, size // width)
    label = ops.one_hot(examples["label"] - 1, num_labels, dtype="float32")
    flat = ops.reshape(attention, (-1, height * width))
    image = ops.reshape(ops.max(examples["image"], axis=-1), cells)
    padding = ops.cast(ops.max(image, axis=(2, 4)) <= 0, "float32")
    is_object = ops.cast(ops.equal(examples["mask"], 1), "float32")
    covered = ops.mean(ops.reshape(is_object, cells), axis=(2, 4))
    valid = ops.cast(ops.not_equal(examples["mask"], IGNORE_LABEL), "float32")
    masked = ops.cast(ops.any(valid > 0, axis=(1, 2)), "float32")
    by_pair = {
        "maps": flat,
        "peaks": ops.one_hot(ops.argmax(flat, axis=-1), height * width, dtype="float32"),
        "squares": ops.sum(flat * flat, axis=-1),
        "entropy": -ops.sum(flat * ops.log(ops.maximum(flat, 1e-30)), axis=-1),
        "padding": ops.sum(attention * padding, axis=(1, 2)),
        "masked": masked,
        "inside": masked * ops.sum(attention * covered, axis=(1, 2)),
        "area": masked * ops.sum(is_object, axis=(1, 2)) / ops.maximum(ops.sum(valid, axis=(1, 2)), 1.0),
    }
    sums = {
        name: ops.matmul(ops.transpose(label), values)
        if name in ("maps", "peaks")
        else ops.matmul(values, label)
        for name, values in by_pair.items()
    }
    for name in ("maps", "peaks"):
        sums[name] = ops.reshape(sums[name], (num_labels, height, width))
    return {f"{ATTENTION_SUMS}{name}": value for name, value in sums.items()}


def label_axis(variable: keras.Variable) -> int | None:
    """Returns the axis of a variable along which labels lie, each a row; None where there is none."""
    return _LABEL_AXES.get("/".join(variable.path.split("/")[-2:]))


def _rows_from(
    first_label: int, variables: list[keras.Variable]
) -> tuple[list[keras.Variable], dict[int, np.ndarray]]:
    """Returns those of the variables that have rows of labels, and what masks the other rows' gradients.

    Adam never moves what never had a gradient: rows that are masked keep their bits.
    """
    if first_label == 1:
        return variables, {}
    rows = [variable for variable in variables if label_axis(variable) is not None]
    masks = {}
    for variable in rows:
        axis = label_axis(variable) % len(variable.shape)
        shape = [-1 if i == axis else 1 for i in range(len(variable.shape))]
        is_new = np.arange(1, variable.shape[axis] + 1) >= first_label
        masks[id(variable)] = is_new.reshape(shape).astype(np.float32)
    return rows, masks


def _positions_classifier(attention: keras.Model) -> keras.Model | None:
    """Returns f_cls of equation (6) on each position's feature, `[B, h, w, D]` to `[B, h w, L]`.

    None for the baselines: their classification pools the scores of positions already.
    """
    pooling = [layer for layer in attention.layers if layer.name == "soft_att"]
    if not pooling:
        return None
    scaled, _ = pooling[0].input
    _, height, width, channels = scaled.shape
    logits = attention.get_layer("classification_head")(ops.reshape(scaled, (-1, channels)))
    logits = ops.reshape(logits, (-1, height * width, logits.shape[-1]))
    return keras.Model(attention.input["features"], logits)


def _behind(
    embed: keras.layers.Dense | None, attention: keras.Model, outputs: dict[str, KerasTensor]
) -> keras.Model:
    """Returns what follows `embed` in the attention part; all of it where there is no such layer."""
    inputs = [attention.input["features"], attention.input["label"]]
    return keras.Model(inputs if embed is None else [*inputs, embed.output], outputs)


def _behind_attention(model: keras.Model) -> keras.Model:
    """Returns what follows the attention part, from its maps and the switches to mask logits."""
    calls: dict[str, tuple] = {}

    def record(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        outputs = layer(*args, **kwargs)
        calls[layer.name] = args, outputs
        return outputs

    # The same layers, called once more: which tensors lie between them a model does not tell.
    keras.models.clone_model(model, call_function=record, clone_function=lambda layer: layer)
    (decoder_inputs,), mask_logits = calls["decoder"]
    _, located = calls["attention"]
    switches = [decoder_inputs[name] for name in _switch_names(model)]
    return keras.Model([located["attention"], located["densified"], *switches], mask_logits)


def _switch_names(model: keras.Model) -> list[str]:
    return sorted(name for name in model.get_layer("encoder").output if name != "features")
