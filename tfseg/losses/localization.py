"""Where a label is, learnt from image labels: multiple instances of one image, its positions."""

from keras import KerasTensor, ops

from tfseg.precision import at_least_float32

POOLING_SHARPNESS = 4.0
"""Of the soft maximum over positions: 0 would be their mean, infinity their maximum."""
ATTENTION_SHARPNESS = 3.0
"""What the positions' log odds are multiplied by before their softmax, which the attention follows."""


def position_log_odds(position_logits: KerasTensor, num_old: int) -> KerasTensor:
    """Log odds of each new label against all old ones together, at each position.

    Args:
        position_logits: `[B, M, L]`, f_cls of equation (6) on the feature of each single position.
        num_old: Labels 1 to `num_old` are the old ones.

    Returns:
        `[B, M, L - num_old]`, float32 at least.
    """
    logits = ops.cast(position_logits, at_least_float32(position_logits.dtype))
    return logits[..., num_old:] - ops.logsumexp(logits[..., :num_old], axis=-1, keepdims=True)


def presence_cross_entropy(log_odds: KerasTensor, present: KerasTensor) -> KerasTensor:
    """Sigmoid cross-entropy of an image's labels, its log odds the soft maximum over its positions.

    Args:
        log_odds: `[B, M, N]`.
        present: float `[B, N]`, 1 where the image shows the label and 0 where it does not.

    Returns:
        `[B]`, the sum over labels, in nats.
    """
    count = ops.cast(ops.shape(log_odds)[1], log_odds.dtype)
    pooled = ops.logsumexp(POOLING_SHARPNESS * log_odds, axis=1) - ops.log(count)
    pooled = pooled / POOLING_SHARPNESS
    return ops.sum(ops.softplus(pooled) - pooled * ops.cast(present, pooled.dtype), axis=-1)


def attention_cross_entropy(
    log_odds: KerasTensor, label: KerasTensor, num_old: int, attention: KerasTensor
) -> KerasTensor:
    """Cross-entropy of the attention against the softmax of the label's log odds over positions.

    The log odds are a target here and get no gradient.

    Args:
        log_odds: `[B, M, N]`, of the labels `num_old + 1` to `num_old + N`.
        label: int `[B]`, ids of the pairs.
        num_old: Pairs of labels up to this id are left out.
        attention: `[B, h, w]` with h w = M, each map with the sum 1.

    Returns:
        `[B]`, in nats; 0 for old labels.
    """
    index = ops.cast(label, "int32") - 1 - num_old
    chosen = ops.reshape(ops.maximum(index, 0), (-1, 1, 1))
    own = ops.squeeze(ops.take_along_axis(log_odds, chosen, axis=-1), -1)
    target = ops.stop_gradient(ops.softmax(ATTENTION_SHARPNESS * own, axis=-1))
    log_attention = ops.log(ops.maximum(ops.cast(attention, target.dtype), 1e-9))
    entropy = -ops.sum(target * ops.reshape(log_attention, ops.shape(target)), axis=-1)
    return ops.where(index >= 0, entropy, 0.0)
