"""The stages of training: what is trained, on which loss, and which network starts it (SPEC 6).

| stage | network | trained | loss |
| --- | --- | --- | --- |
| encoder | classifier | all of it | multi-label, both domains ("stage 0" of the paper) |
| classifier | classifier | all of it | multi-label, both domains |
| attention | segmentation | attention, classification head | equation (6) |
| joint | segmentation | the same, and the decoder | equation (9) |
"""

import dataclasses
from collections.abc import Collection, Mapping

import keras
from keras import KerasTensor, ops

from tfseg.losses import (
    label_cross_entropy,
    mask_cross_entropy,
    mean_over_valid,
    multi_label_cross_entropy,
)

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
    """

    def __init__(self, classifier: keras.Model, known_labels: Mapping[str, Collection[int]]) -> None:
        self.model = classifier
        self.trained = classifier.trainable_variables
        self.decoded_domains: frozenset[str] = frozenset()
        num_labels = classifier.output["class_logits"].shape[-1]
        self._known = {
            domain: [float(i in known) for i in range(1, num_labels + 1)]
            for domain, known in known_labels.items()
        }

    def losses(self, examples: Examples, domain: str, norm: Normalization) -> Losses:
        """Returns the micro-batch's share of the global loss, and what to show."""
        logits = self.model({"image": examples["image"]}, training=True)["class_logits"]
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
    """

    def __init__(
        self,
        model: keras.Model,
        joint: bool,
        seg_weight: float = 1.0,
        decode_target: bool = False,
        mean_per_micro_batch: bool = False,
    ) -> None:
        self.model = model
        self.seg_weight = seg_weight
        self.mean_per_micro_batch = mean_per_micro_batch
        self.trained = model.get_layer("attention").trainable_variables
        self.decoded_domains = frozenset()
        self._classify = _without_decoder(model)
        if joint:
            self.trained = self.trained + model.get_layer("decoder").trainable_variables
            self.decoded_domains = frozenset({"source", "target"} if decode_target else {"source"})

    def losses(self, examples: Examples, domain: str, norm: Normalization) -> Losses:
        """Returns the micro-batch's share of the global losses, and what to show."""
        decoded = domain in self.decoded_domains
        inputs = {"image": examples["image"], "label": examples["label"]}
        outputs = (self.model if decoded else self._classify)(inputs, training=True)
        logits = outputs["class_logits"]
        cls_loss = ops.sum(label_cross_entropy(examples["label"], logits)) / norm.pairs
        right = ops.equal(ops.cast(ops.argmax(logits, -1), "int32") + 1, examples["label"])
        losses = {
            "loss": cls_loss,
            "cls_loss": cls_loss,
            "cls_accuracy": ops.sum(ops.cast(right, "float32")) / norm.pairs,
        }
        if decoded:
            seg_sum, valid = mask_cross_entropy(examples["mask"], outputs["mask_logits"])
            if self.mean_per_micro_batch:
                losses["seg_loss"] = mean_over_valid(seg_sum, valid) / norm.micro_batches
            else:
                losses["seg_loss"] = mean_over_valid(seg_sum, norm.valid_pixels)
            losses["loss"] = cls_loss + self.seg_weight * losses["seg_loss"]
        return losses


def _without_decoder(model: keras.Model) -> keras.Model:
    """Returns the part of a segmentation network that equation (6) needs, of the same layers.

    What leads from the attention to the decoder alone is left out too: DecoupledNet's batch norm must not
    learn statistics of pairs that are never decoded.
    """
    attention = model.get_layer("attention")
    classification = keras.Model(attention.input, attention.output["class_logits"], name="classification")
    image, label = model.input["image"], model.input["label"]
    features = model.get_layer("encoder")(image)["features"]
    class_logits = classification({"features": features, "label": label})
    return keras.Model(model.input, {"class_logits": class_logits}, name="without_decoder")
