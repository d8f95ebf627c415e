"""A small network and random batches for the tests of training."""

import keras
import numpy as np
import tensorflow as tf
from small_networks import THREE_BLOCKS, contrast

from tfseg.config import CLASSIFIER_STAGES
from tfseg.data.labels import Label, LabelMap
from tfseg.models import BUILDERS, build_classifier
from tfseg.training.optimizer import AdamWithMultipliers, official_multipliers
from tfseg.training.stages import MultiLabelStage, SegmentationStage
from tfseg.training.step import build_train_step

CONFIG = THREE_BLOCKS.replace(classifier_dropout=0.0)
LABEL_MAP = LabelMap("five", tuple(Label(i, f"l{i}", "target" if i <= 2 else "source") for i in range(1, 6)))
DOMAINS = ("source", "target")
# As the builders' defaults make records: source images with a target category are dropped.
KNOWN_LABELS = {"source": (1, 2, 3, 4, 5), "target": (1, 2)}


def network(stage="joint", model="transfernet", config=CONFIG, seed=0):
    """Builds the network of a stage with attention and masks that are far from uniform."""
    keras.utils.set_random_seed(seed)
    if stage in CLASSIFIER_STAGES:
        return build_classifier(config)
    built = BUILDERS[model](config)
    contrast(built)
    return built


def stage_of(built, stage="joint", known_labels=KNOWN_LABELS, **options):
    """Wraps a network for training."""
    if stage in CLASSIFIER_STAGES:
        return MultiLabelStage(built, known_labels)
    return SegmentationStage(built, joint=stage == "joint", **options)


def batch_of(size=8, seed=0, config=CONFIG, domains=DOMAINS, valid=0.7):
    """A global batch as `tfseg.data.batches` gives it; the share of valid pixels differs by example."""
    rng = np.random.default_rng(seed)
    share, side = size // len(domains), config.image_size
    batch = {}
    for domain in domains:
        label = rng.choice(LABEL_MAP.ids(domain), share)
        present = rng.integers(0, 2, (share, config.num_labels))
        present[np.arange(share), label - 1] = 1
        # Source images hold no target category, and nobody looked for source categories in the target.
        present[:, [i - 1 for i in LABEL_MAP.ids("target" if domain == "source" else "source")]] = 0
        mask = rng.integers(0, 2, (share, side, side))
        hidden = rng.uniform(size=(share, side, side)) > valid * rng.uniform(0, 1, (share, 1, 1))
        mask = np.where(hidden | (domain == "target"), 255, mask)
        batch[domain] = {
            "image": tf.constant(rng.uniform(0, 255, (share, side, side, 3)), tf.float32),
            "label": tf.constant(label, tf.int32),
            "mask": tf.constant(mask, tf.uint8),
            "present": tf.constant(present, tf.float32),
        }
    return batch


class Recorder(keras.optimizers.SGD):
    """Keeps the gradients that it is given and leaves the weights."""

    def __init__(self, variables):
        super().__init__(learning_rate=0.0)
        self.gradients = [tf.Variable(tf.zeros(v.shape, v.dtype)) for v in variables]

    def apply(self, grads, trainable_variables=None):
        for kept, gradient in zip(self.gradients, grads, strict=True):
            kept.assign(gradient)


def scalars(losses):
    """The losses of an update without the sums of its attention maps."""
    return {name: float(value) for name, value in losses.items() if not value.shape.rank}


def gradients_of(stage, batch, micro_batch_size=0, jit_compile=False):
    """Losses and gradients of one update, the latter as `{path: array}`."""
    recorder = Recorder(stage.trained)
    size = sum(len(examples["label"]) for examples in batch.values())
    step = build_train_step(stage, recorder, tuple(batch), size, micro_batch_size, jit_compile)
    losses = scalars(step(batch))
    values = [kept.numpy() for kept in recorder.gradients]
    return losses, {v.path: value for v, value in zip(stage.trained, values, strict=True)}


def trainer(stage, batch_size, micro_batch_size=0, learning_rate=1e-3, domains=DOMAINS):
    """The update with the optimizer of the recipe."""
    optimizer = AdamWithMultipliers(official_multipliers(stage.trained), learning_rate=learning_rate)
    optimizer.build(stage.trained)
    return optimizer, build_train_step(stage, optimizer, domains, batch_size, micro_batch_size)


def assert_close(actual, expected, relative=1e-5):
    """Compares `{name: array}` relative to the largest entry of each."""
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        atol = relative * np.abs(value).max() + 1e-12
        np.testing.assert_allclose(actual[name], value, rtol=0, atol=atol, err_msg=name)
