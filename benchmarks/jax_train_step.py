"""Run by gpu_step.py: updates of the joint stage by Keras on JAX, without TensorFlow, on request.

Usage: jax_train_step.py '{"preset": ..., "image_size": ..., "batch_size": ..., "dtype_policy": ...,
"updates": ...}'; see `timing.serve`. Convolutions and products of float32 take TF32 where the GPU has it.
"""

import json
import os
import sys
from collections.abc import Callable

os.environ["KERAS_BACKEND"] = "jax"
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax
import jax.numpy as jnp
import keras
import numpy as np
from timing import Laps, serve

from tfseg.config import ModelConfig, preset
from tfseg.models.transfernet import build_transfernet
from tfseg.training.stages import Normalization, SegmentationStage

DOMAINS = ("target", "source")
RATE, BETA1, BETA2, EPSILON = 1e-4, 0.9, 0.999, 1e-8


def main(text: str) -> None:
    """Answers requests until standard input ends."""
    options = json.loads(text)
    start = Laps(options["started"])
    start.end("imports")
    jax.config.update("jax_default_matmul_precision", "tensorfloat32")
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(options["dtype_policy"])
    config = preset(options["preset"])
    config = config.replace(image_size=options["image_size"] or config.image_size)
    stage = SegmentationStage(build_transfernet(config), joint=True)
    batch = _batch(config, options["batch_size"] // 2)
    update = _update(stage, options["batch_size"])
    weights = [variable.value for variable in stage.trained]
    zeros = [jnp.zeros_like(weight) for weight in weights]
    state = [weights, zeros, [jnp.zeros_like(weight) for weight in weights], jnp.float32(0)]
    start.end("network")

    def updates(count: int) -> float:
        for _ in range(count):
            state[:], loss = update(state, batch)
        return float(loss)

    loss = updates(1)
    start.end("first update")
    serve(
        {"loss": loss, "start": start.seconds, "device": jax.devices()[0].device_kind},
        {"updates": lambda: updates(options["updates"])},
    )


def _update(stage: SegmentationStage, pairs: int) -> Callable:
    """Returns the compiled step of Adam, with the authors' factors, from state and batch to both anew."""
    factors = [
        (10.0 if "/cls_score/" in f"/{variable.path}" else 1.0)
        * (2.0 if variable.path.endswith("/bias") else 1.0)
        for variable in stage.trained
    ]

    def loss_of(weights: list, encoded: dict, batch: dict) -> jax.Array:
        norm = Normalization(pairs, jnp.sum(batch["source"]["mask"] != 255).astype("float32"), 1)
        with keras.StatelessScope(state_mapping=list(zip(stage.trained, weights, strict=True))):
            total = 0.0
            for domain in DOMAINS:
                examples = batch[domain] | encoded[domain]
                examples["embedded"] = stage.embed(stage.flatten(examples["features"]))
                total += stage.losses(examples, domain, norm)["loss"]
        return total

    def update(state: list, batch: dict) -> tuple[list, jax.Array]:
        weights, means, squares, step = state
        encoded = {domain: stage.encode(batch[domain], domain) for domain in DOMAINS}
        loss, gradients = jax.value_and_grad(loss_of)(weights, encoded, batch)
        step += 1
        means = [BETA1 * m + (1 - BETA1) * g for m, g in zip(means, gradients, strict=True)]
        squares = [BETA2 * v + (1 - BETA2) * g * g for v, g in zip(squares, gradients, strict=True)]
        rate = RATE * jnp.sqrt(1 - BETA2**step) / (1 - BETA1**step)
        moved = zip(weights, means, squares, factors, strict=True)
        weights = [w - rate * factor * m / (jnp.sqrt(v) + EPSILON) for w, m, v, factor in moved]
        return [weights, means, squares, step], loss

    return jax.jit(update, donate_argnums=0)


def _batch(config: ModelConfig, share: int) -> dict[str, dict[str, jax.Array]]:
    """Returns the batch that `train_step_worker.py` trains on, for JAX."""
    rng = np.random.default_rng(0)
    size, batch = config.image_size, {}
    for domain in ("source", "target"):
        low, high = (0, 2) if domain == "source" else (255, 256)
        batch[domain] = {
            "image": jnp.asarray(rng.uniform(0, 255, (share, size, size, 3)), "float32"),
            "label": jnp.asarray(rng.integers(1, config.num_labels + 1, share), "int32"),
            "mask": jnp.asarray(rng.integers(low, high, (share, size, size)), "uint8"),
        }
    return batch


if __name__ == "__main__":
    main(sys.argv[1])
