"""Trains on one and on two logical CPU devices and prints how far they part, one JSON line a case.

Run as a program: logical devices can only be set before TensorFlow starts.
"""

import json
import tempfile

import numpy as np
import small_training as small
import tensorflow as tf

from tfseg.training.checkpoints import stage_checkpoint

UPDATES = 4
BATCH = 16
DROPOUT = small.CONFIG.replace(classifier_dropout=0.5)
COMPARED = {
    "attention": ("attention", "transfernet", {}),
    "joint": ("joint", "transfernet", {}),
    "joint_micro": ("joint", "transfernet", {"micro_batch_size": 2, "mean_per_micro_batch": True}),
    "encoder": ("encoder", "transfernet", {"micro_batch_size": 2}),
    "baselinenet": ("joint", "baselinenet", {}),
}
# Dropout and batch norm are drawn and taken on each device by itself.
RUN = {
    "dropout": ("encoder", "transfernet", {"config": DROPOUT, "micro_batch_size": 2}),
    "decouplednet": ("joint", "decouplednet", {"config": DROPOUT, "micro_batch_size": 2}),
}


def _batches() -> tf.data.Dataset:
    """The same global batches for everybody, of parts of the size that the training stream has."""
    batches = [small.batch_of(BATCH, seed) for seed in range(UPDATES)]
    examples = tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *batches)
    parts = {
        domain: tf.data.Dataset.from_tensor_slices(part).batch(BATCH // 2, drop_remainder=True)
        for domain, part in examples.items()
    }
    return tf.data.Dataset.zip(parts).prefetch(2)


def _train(strategy, stage, model, config=small.CONFIG, micro_batch_size=0, **options):
    """Start weights, losses of each update, weights on each device, and the optimizer's variables."""
    with strategy.scope():
        built = small.network(stage, model, config)
        wrapped = small.stage_of(built, stage, **options)
        optimizer, train_step = small.trainer(wrapped, BATCH, micro_batch_size, learning_rate=5e-4)
    start = {weight.path: weight.numpy() for weight in built.variables}
    losses = [
        small.scalars(train_step(batch)) for batch in strategy.experimental_distribute_dataset(_batches())
    ]
    with strategy.scope(), tempfile.TemporaryDirectory() as folder:
        checkpoint = stage_checkpoint(built, optimizer, tf.Variable(0, dtype=tf.int64))
        checkpoint.read(checkpoint.write(f"{folder}/ckpt")).assert_consumed()
    copies = {
        weight.path: [value.numpy() for value in strategy.experimental_local_results(weight.value)]
        for weight in built.variables
    }
    return start, losses, copies, [variable.numpy() for variable in optimizer.variables]


def _largest_difference(left, right) -> float:
    pairs = [(left[key], right[key]) for key in left]
    return max(float(np.abs(a - b).max()) for a, b in pairs if np.asarray(a).dtype.kind == "f")


def _compare(one, two, stage, model, options) -> dict:
    start, losses, copies, _ = _train(one, stage, model, **options)
    start2, losses2, copies2, _ = _train(two, stage, model, **options)
    return {
        "updates": len(losses2),
        "losses": max(map(_largest_difference, losses, losses2)),
        "start": _largest_difference(start, start2),
        "weights": _largest_difference(_first(copies), _first(copies2)),
        "moved": _largest_difference(start2, _first(copies2)),
    }


def _run(two, stage, model, options) -> dict:
    _, losses, copies, moments = _train(two, stage, model, **options)
    values = [*moments, *(value for c in copies.values() for value in c)]
    return {
        "losses": [entry["loss"] for entry in losses],
        "finite": bool(all(np.isfinite(value).all() for value in values)),
        "devices": min(map(len, copies.values())),
        "unequal_copies": [path for path, (a, b) in copies.items() if not np.array_equal(a, b)],
    }


def _first(copies) -> dict:
    return {path: values[0] for path, values in copies.items()}


def _adam_step(strategy) -> dict:
    """One step with unit gradients on each device: gradients are summed, multipliers hold."""
    with strategy.scope():
        built = small.network("attention")
        variables = built.get_layer("attention").trainable_variables
        optimizer, _ = small.trainer(small.stage_of(built, "attention"), BATCH, learning_rate=1e-3)
    before = {variable.path: variable.numpy() for variable in variables}

    @tf.function
    def update():
        strategy.run(lambda: optimizer.apply([tf.ones(v.shape) for v in variables], variables))

    update()
    steps = {v.path: float(np.mean(before[v.path] - v.numpy())) / 1e-3 for v in variables}
    moments = [v.numpy() for v in optimizer.variables if "momentum" in v.path]
    return {"steps": steps, "momentum": [float(moment.mean()) for moment in moments]}


def main() -> None:
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # One strategy a set of devices: TensorFlow mixes up the collectives of several in one process.
    one, two = (tf.distribute.MirroredStrategy([f"CPU:{i}" for i in range(n)]) for n in (1, 2))
    for name, case in COMPARED.items():
        print(json.dumps({"case": name, **_compare(one, two, *case)}), flush=True)
    for name, case in RUN.items():
        print(json.dumps({"case": name, **_run(two, *case)}), flush=True)
    print(json.dumps({"case": "adam", **_adam_step(two)}), flush=True)


if __name__ == "__main__":
    main()
