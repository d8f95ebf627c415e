"""The golden set, and one run of our network on it in the golden's names and layouts.

The folder is `TFSEG_GOLDEN`, by default tests/golden; its README says what the files hold.
Nothing is assumed of sizes, labels, weights, or of which sample the reduced blobs keep.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from tfseg.config import ModelConfig
from tfseg.importers.caffe import import_transfernet, infer_config, load_caffemodel
from tfseg.losses import label_cross_entropy, mask_cross_entropy, mean_over_valid
from tfseg.models import build_transfernet

FOLDER = Path(os.environ.get("TFSEG_GOLDEN") or Path(__file__).parents[1] / "golden")
SEG_LOSS_WEIGHT = 2.0


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """Reads one of the golden .npz files."""
    with np.load(FOLDER / f"{name}.npz") as data:
        return {key: data[key] for key in data.files}


def keys(name: str) -> list[str]:
    """Lists the arrays of a golden file, for test ids."""
    return sorted(arrays(name))


def build() -> tuple[keras.Model, ModelConfig]:
    """Builds the golden's network from its blobs alone and sets its weights."""
    layers = load_caffemodel(FOLDER / "weights.caffemodel")
    config = infer_config(layers)
    model = build_transfernet(config)
    assert import_transfernet(FOLDER / "weights.caffemodel", model) == ()
    return model, config


def batch(config: ModelConfig) -> dict[str, np.ndarray]:
    """Gives the golden's inputs as our model takes them: RGB images, ids from 1, masks."""
    inputs = arrays("inputs")
    bgr = inputs["data"].astype(np.float64) + np.reshape(config.bgr_mean, (1, 3, 1, 1))
    if np.abs(bgr - np.rint(bgr)).max() < 1e-3:
        bgr = np.rint(bgr)
    return {
        "image": np.ascontiguousarray(bgr[:, ::-1].transpose(0, 2, 3, 1), np.float32),
        "label": inputs["cls-label"].reshape(len(bgr), -1).argmax(1).astype(np.int32) + 1,
        "mask": inputs["seg-label"][:, 0],
    }


def losses(outputs: dict, label, mask) -> dict[str, tf.Tensor]:
    """Computes the three losses under the golden's names."""
    cls_loss = tf.reduce_mean(label_cross_entropy(label, outputs["class_logits"]))
    seg_loss = mean_over_valid(*mask_cross_entropy(mask, outputs["mask_logits"]))
    total = cls_loss + SEG_LOSS_WEIGHT * seg_loss
    return {"cls-loss": cls_loss, "seg-loss": seg_loss, "total_loss": total}


def weighted_layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Lists the layers with weights under their Caffe names."""
    found = {}
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            found |= weighted_layers(layer)
        elif layer.weights:
            special = {"cls_score": "cls-score-voc-att", "att_w": "att-w", "seg_score": "seg-score"}
            found[special.get(layer.name, layer.name)] = layer
    return found


def parameters(model: keras.Model) -> dict[str, keras.Variable]:
    """Lists the variables as "layer/0" (weight) and "layer/1" (bias)."""
    return {
        f"{name}/{index}": variable
        for name, layer in weighted_layers(model).items()
        for index, variable in enumerate(layer.weights)
    }


def to_caffe(key: str, array: np.ndarray, config: ModelConfig) -> np.ndarray:
    """Brings a weight of ours, or its gradient, into Caffe's layout; spelled out by einsum."""
    if array.ndim == 1:
        return array
    if key == "feat_embed/0":
        side, channels = config.map_size, config.feature_channels
        by_place = array.reshape(side, side, channels, -1)
        return np.einsum("hwco->ochw", by_place).reshape(array.shape[1], -1)
    if array.ndim == 2:
        return np.einsum("io->oi", array)
    # Conv2D (h, w, i, o) to Convolution (o, i, h, w);
    # Conv2DTranspose (h, w, o, i) to Deconvolution (i, o, h, w).
    return np.einsum("hwab->bahw", array)


@dataclass
class Run:
    """Everything one pass over the golden batch gives, in NCHW and under Caffe's names."""

    config: ModelConfig
    blobs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    gradients: dict[str, np.ndarray]
    blob_gradients: dict[str, np.ndarray]


def run() -> Run:
    """Runs the network forward and backward, every layer unfrozen."""
    model, config = build()
    data = batch(config)
    inputs = {"image": data["image"], "label": data["label"]}
    variables = parameters(model)
    with tf.GradientTape() as tape:
        outputs = model(inputs)
        total = losses(outputs, data["label"], data["mask"])["total_loss"]
    gradients = tape.gradient(total, {key: v.value for key, v in variables.items()})
    blobs, blob_gradients = _probe(model, config, data)
    return Run(
        config=config,
        blobs=blobs,
        outputs={key: value.numpy() for key, value in outputs.items()},
        gradients={key: to_caffe(key, g.numpy(), config) for key, g in gradients.items()},
        blob_gradients=blob_gradients,
    )


def _probe(model: keras.Model, config: ModelConfig, data: dict[str, np.ndarray]):
    """Runs the model's own parts with every layer's output as one more output."""
    probes = {name: _all_outputs(model.get_layer(name)) for name in ("encoder", "decoder")}
    attention = model.get_layer("attention")
    probes["attention"] = _all_outputs(attention)
    probes["head"] = _all_outputs(attention.get_layer("classification_head"))
    label = tf.constant(data["label"])
    with tf.GradientTape() as tape:
        tensors = dict(probes["encoder"](data["image"]))
        depth, _ = config.encoder_blocks[-1]
        features = tensors[f"conv{len(config.encoder_blocks)}_{depth}"]
        tensors |= probes["attention"]({"features": features, "label": label})
        tensors |= probes["head"](tensors["soft_att"])
        switches = {
            f"switches{block}": tensors[f"pool{block}_mask"] for block in range(1, config.num_poolings + 1)
        }
        tensors |= probes["decoder"]({"densified": tensors["filter_sum_map"], **switches})
        outputs = {"class_logits": tensors["cls_score"], "mask_logits": tensors["seg_score"]}
        values = losses(outputs, data["label"], data["mask"])
    named = {_caffe_blob(name): tensor for name, tensor in tensors.items()}
    wanted = [key.removeprefix("blob:") for key in arrays("grads") if key.startswith("blob:")]
    gradients = tape.gradient(values["total_loss"], {name: named[name] for name in wanted})
    blobs = {name: to_nchw(tensor.numpy()) for name, tensor in named.items()}
    for block in range(1, config.num_poolings + 1):
        blobs[f"pool{block}_mask"] = plane_indices(blobs[f"pool{block}_mask"])
    blobs["att"] = blobs["att-normalized"][:, None]
    blobs["att-normalized"] = blobs["att-normalized"].reshape(len(data["label"]), -1)
    blobs["filter_sum_map"] = blobs["filter_sum_map"][:, None]
    blobs["data"] = blobs.pop("normalization")
    blobs["cls-label-digit"] = blobs.pop("cls_label").argmax(1).reshape(-1, 1, 1, 1)
    blobs |= {name: value.numpy() for name, value in values.items()}
    blobs |= _accuracies(blobs, data)
    return blobs, {name: to_nchw(gradient.numpy()) for name, gradient in gradients.items()}


def _all_outputs(model: keras.Model) -> keras.Model:
    outputs = {}
    for layer in model.layers:
        if isinstance(layer, (keras.Model, keras.layers.InputLayer)):
            continue
        if isinstance(layer.output, (tuple, list)):
            outputs[layer.name], outputs[f"{layer.name}_mask"] = layer.output
        else:
            outputs[layer.name] = layer.output
    return keras.Model(model.input, outputs)


def _caffe_blob(name: str) -> str:
    names = ("att_w", "att_normalized", "soft_att", "cls_score", "seg_score")
    return name.replace("_", "-") if name in names else name


def to_nchw(array: np.ndarray) -> np.ndarray:
    """Changes [B, H, W, C] to [B, C, H, W]; other ranks stay."""
    return array.transpose(0, 3, 1, 2) if array.ndim == 4 else array


def plane_indices(switches: np.ndarray) -> np.ndarray:
    """Turns 2x2 switches [B, C, H, W] into Caffe's indices y * W + x in the pooled plane."""
    y = 2 * np.arange(switches.shape[2])[:, None] + switches // 2
    x = 2 * np.arange(switches.shape[3]) + switches % 2
    return y.astype(int) * 2 * switches.shape[3] + x


def _accuracies(blobs: dict[str, np.ndarray], data: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    valid = data["mask"] != 255
    right = blobs["seg-score"].argmax(1) == data["mask"]
    return {
        "cls-accuracy": np.mean(blobs["cls-score"].argmax(1) + 1 == data["label"]),
        "seg-accuracy": np.mean(right[valid]),
    }


def error(got: np.ndarray, want: np.ndarray) -> float:
    """Gives the worst difference, relative to the largest wanted value."""
    difference = np.abs(np.asarray(got, np.float64) - want).max()
    return float(difference / max(np.abs(want.astype(np.float64)).max(), 1e-30))
