"""One update: micro-batches of both domains in turn, their gradients summed, one step of the optimizer."""

from collections.abc import Callable

import keras
import tensorflow as tf

from tfseg.errors import InputError
from tfseg.losses import IGNORE_LABEL
from tfseg.training.stages import MultiLabelStage, Normalization, SegmentationStage

Examples = dict[str, tf.Tensor]
Batch = dict[str, Examples]
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
        optimizer: Built for `stage.trained`. A `keras.optimizers.LossScaleOptimizer` has the loss scaled, and
            leaves out an update whose gradients overflow.
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
    # The gradient of the embedding's kernel is a product of two small matrices, and itself 0.84 GB: it is
    # formed once, of the whole batch, from what goes into the layer and the gradient of what comes out.
    embed = [id(stage.embed.kernel), id(stage.embed.bias)] if stage.embed else []
    summed = [variable for variable in stage.trained if id(variable) not in embed]

    @tf.function(jit_compile=jit_compile, autograph=False)
    def encode(examples: Examples, domain: str) -> Examples:
        return stage.encode(examples, domain)

    @tf.function(jit_compile=jit_compile, autograph=False)
    def gradients(
        examples: Examples, valid_pixels: tf.Tensor, domain: str
    ) -> tuple[list[tf.Tensor | None], tf.Tensor | None, dict[str, tf.Tensor]]:
        norm = Normalization(batch_size, valid_pixels, rounds * len(decoded) * replicas)
        watched = [variable.value for variable in summed]
        embedded = [examples["embedded"]] if embed else []
        # Watching the trained variables alone keeps everything else free of a backward pass.
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([watched, embedded])
            losses = stage.losses(examples, domain, norm)
            scaled = optimizer.scale_loss(losses["loss"])  # The same, but for `LossScaleOptimizer`.
        grads, embedded_grad = tape.gradient(scaled, (watched, embedded))
        return grads, embedded_grad[0] if embed else None, losses

    def encode_all(cut: Batch) -> dict[str, tf.Tensor]:
        """Adds what the frozen encoder gives to the examples; returns the inputs of `embed`."""
        flat = {}
        for domain in domains:
            if dtypes := stage.encoded_dtypes(domain):
                cut[domain] |= tf.map_fn(
                    lambda examples, domain=domain: encode(examples, domain),
                    cut[domain],
                    parallel_iterations=1,
                    fn_output_signature=dtypes,
                )
            if embed:
                features = cut[domain]["features"]
                flat[domain] = stage.flatten(tf.reshape(features, (share, *features.shape[2:])))
                embedded = stage.embed(flat[domain])
                cut[domain]["embedded"] = tf.reshape(embedded, (rounds, micro, *embedded.shape[1:]))
        return flat

    def replica_step(batch: Batch) -> dict[str, tf.Tensor]:
        valid_pixels = _count_valid([batch[domain]["mask"] for domain in decoded])
        # One micro-batch after the other: side by side they would take the memory of the whole batch.
        cut = tf.nest.map_structure(lambda x: tf.reshape(x, (rounds, micro, *x.shape[1:])), batch)
        flat = encode_all(cut)

        def add_round(i: tf.Tensor, sums: list, embedded_grads: dict, shown: dict) -> tuple:
            for domain in domains:
                examples = tf.nest.map_structure(lambda x: x[i], cut[domain])
                grads, embedded_grad, losses = gradients(examples, valid_pixels, domain)
                sums = [s if g is None else s + g for s, g in zip(sums, grads, strict=True)]
                if embed:
                    embedded_grads |= {domain: embedded_grads[domain].write(i, embedded_grad)}
                shown |= {name: shown[name] + tf.cast(value, tf.float64) for name, value in losses.items()}
            return i + 1, sums, embedded_grads, shown

        sums = [tf.zeros(variable.shape, variable.dtype) for variable in summed]
        arrays = {d: tf.TensorArray(stage.embed.compute_dtype, rounds) for d in domains if embed}
        shown = {}
        for domain in domains:
            like = tf.nest.map_structure(lambda x: tf.TensorSpec(x.shape[1:], x.dtype), cut[domain])
            traced = gradients.get_concrete_function(like, tf.TensorSpec([], tf.float32), domain)
            _, _, losses = traced.structured_outputs
            # In float64, so that sums do not depend on the order that the compiler gives them.
            shown |= {name: tf.zeros(value.shape, tf.float64) for name, value in losses.items()}
        _, sums, arrays, shown = tf.while_loop(
            lambda i, *_: i < rounds,
            add_round,
            (tf.constant(0), sums, arrays, shown),
            parallel_iterations=1,
        )
        by_id = {id(variable): total for variable, total in zip(summed, sums, strict=True)}
        if embed:
            inputs = tf.concat([flat[domain] for domain in domains], axis=0)
            grads = tf.concat([arrays[domain].concat() for domain in domains], axis=0)
            kernel, bias = stage.embed.kernel, stage.embed.bias
            inputs, grads = tf.cast(inputs, kernel.dtype), tf.cast(grads, kernel.dtype)
            by_id[id(kernel)] = tf.matmul(inputs, grads, transpose_a=True)
            by_id[id(bias)] = tf.reduce_sum(grads, axis=0)
        for variable in stage.trained:
            if (mask := stage.gradient_masks.get(id(variable))) is not None:
                by_id[id(variable)] *= tf.cast(mask, variable.dtype)
        optimizer.apply([by_id[id(variable)] for variable in stage.trained], stage.trained)
        return {name: tf.cast(value, tf.float32) for name, value in shown.items()}

    @tf.function(autograph=False)
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
