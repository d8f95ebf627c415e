"""One update: micro-batches of both domains in turn, their gradients summed, one step of the optimizer."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tfseg.errors import InputError
from tfseg.losses import IGNORE_LABEL
from tfseg.training.stages import MultiLabelStage, Normalization, SegmentationStage

Batch = dict[str, dict[str, tf.Tensor]]
Stage = MultiLabelStage | SegmentationStage


def build_train_step(
    stage: Stage,
    optimizer: keras.optimizers.Optimizer,
    domains: tuple[str, ...],
    batch_size: int,
    micro_batch_size: int,
    jit_compile: bool = False,
) -> Callable[[Batch], dict[str, tf.Tensor]]:
    """Builds the update under the current `tf.distribute` strategy.

    Micro-batches alternate between the domains, target first, as the authors' loader does (SPEC 4.6); their
    gradients add up to that of one balanced batch, whatever their size and however many replicas share
    them. All sums are divided by counts of the *global* batch, since replicas' gradients are summed.

    Args:
        stage: Network, trained variables and loss.
        optimizer: Built for `stage.trained`.
        domains: Keys of the batch.
        batch_size: Pairs of an update, over domains and replicas.
        micro_batch_size: Pairs that one replica computes at once; 0 for its whole share of a domain.
        jit_compile: Whether the computation of a micro-batch is compiled by XLA.

    Returns:
        Function from a (distributed) batch of `tfseg.data.batches` to the losses of the update, taken
        before it: float32 scalars by name.

    Raises:
        InputError: If the batch cannot be cut so.
    """
    strategy = tf.distribute.get_strategy()
    domains = tuple(sorted(domains, reverse=True))
    replicas = strategy.num_replicas_in_sync
    share, rest = divmod(batch_size, len(domains) * replicas)
    micro = micro_batch_size or share
    if rest or not share or share % micro:
        raise InputError(
            f"batch_size={batch_size}, micro_batch_size={micro_batch_size}: each of {replicas} replica(s) "
            f"must get as many pairs of each of {len(domains)} domain(s), a multiple of the micro-batch"
        )
    rounds = share // micro
    decoded = [domain for domain in domains if domain in stage.decoded_domains]
    trained = [variable.value for variable in stage.trained]

    @tf.function(jit_compile=jit_compile)
    def gradients(
        examples: dict[str, tf.Tensor], valid_pixels: tf.Tensor, domain: str
    ) -> tuple[list[tf.Tensor], dict[str, tf.Tensor]]:
        norm = Normalization(batch_size, valid_pixels, rounds * len(decoded) * replicas)
        # Watching the trained variables alone keeps the frozen encoder free of a backward pass.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(trained)
            losses = stage.losses(examples, domain, norm)
        zero = tf.UnconnectedGradients.ZERO
        return tape.gradient(losses["loss"], trained, unconnected_gradients=zero), losses

    def accumulate(batch: Batch, valid_pixels: tf.Tensor) -> tuple[list[tf.Tensor], dict]:
        total, shown = None, {}
        for domain in domains:
            grads, losses = gradients(batch[domain], valid_pixels, domain)
            total = grads if total is None else [a + b for a, b in zip(total, grads, strict=True)]
            for name, value in losses.items():
                shown[name] = shown.get(name, 0.0) + value
        return total, shown

    def replica_step(batch: Batch) -> dict[str, tf.Tensor]:
        valid_pixels = _count_valid([batch[domain]["mask"] for domain in decoded])
        cut = tf.nest.map_structure(lambda x: tf.reshape(x, (rounds, micro, *x.shape[1:])), batch)
        total, shown = accumulate(_at(cut, 0), valid_pixels)
        if rounds > 1:
            # One after the other: side by side they would take the memory of the whole batch.
            _, total, shown = tf.while_loop(
                lambda i, *_: i < rounds,
                lambda i, total, shown: (
                    i + 1,
                    *_add((total, shown), accumulate(_at(cut, i), valid_pixels)),
                ),
                (tf.constant(1), total, shown),
                parallel_iterations=1,
            )
        optimizer.apply(total, stage.trained)
        return shown

    @tf.function
    def train_step(batch: Batch) -> dict[str, tf.Tensor]:
        per_replica = strategy.run(replica_step, args=(batch,))
        return {
            name: strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None)
            for name, value in per_replica.items()
        }

    return train_step


def _count_valid(masks: list[tf.Tensor]) -> tf.Tensor:
    """Counts the pixels of all replicas that are not ignored."""
    counts = [tf.reduce_sum(tf.cast(mask != IGNORE_LABEL, tf.float32)) for mask in masks]
    count = tf.add_n(counts) if counts else tf.constant(0.0)
    return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, count)


def _at(cut: Batch, index: tf.Tensor | int) -> Batch:
    return tf.nest.map_structure(lambda x: x[index], cut)


def _add(left: tuple, right: tuple) -> tuple:
    return tf.nest.map_structure(tf.add, left, right)
