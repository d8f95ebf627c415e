"""Losses on image-level labels, one number an example; whoever calls them divides by the global batch."""

from keras import KerasTensor, ops

from tfseg.precision import at_least_float32


def label_cross_entropy(label: KerasTensor, class_logits: KerasTensor) -> KerasTensor:
    """e_c of equation (6): softmax cross-entropy of one label.

    Args:
        label: int `[B]`, ids 1 to L.
        class_logits: `[B, L]`.

    Returns:
        `[B]`, float32 at least, in nats; NaN for an id outside, which stops a training instead of teaching it
        another label.
    """
    logits = ops.cast(class_logits, at_least_float32(class_logits.dtype))
    index = ops.cast(label, "int32") - 1
    known = ops.logical_and(index >= 0, index < logits.shape[-1])
    chosen = ops.take_along_axis(logits, ops.expand_dims(ops.where(known, index, 0), -1), axis=-1)
    loss = ops.logsumexp(logits, axis=-1) - ops.squeeze(chosen, -1)
    return ops.where(known, loss, float("nan"))


def multi_label_cross_entropy(
    present: KerasTensor, known: KerasTensor, class_logits: KerasTensor
) -> KerasTensor:
    """Sigmoid cross-entropy over the labels that somebody looked for in the image.

    A target image was never searched for source categories; they are unknown there, not absent.

    Args:
        present: float `[B, L]`, 1 where the label is in the image.
        known: float `[B, L]`, 1 where presence or absence is known.
        class_logits: `[B, L]`.

    Returns:
        `[B]`, float32 at least, the sum over known labels, in nats.
    """
    logits = ops.cast(class_logits, at_least_float32(class_logits.dtype))
    loss = ops.softplus(logits) - logits * ops.cast(present, logits.dtype)
    return ops.sum(loss * ops.cast(known, logits.dtype), axis=-1)
