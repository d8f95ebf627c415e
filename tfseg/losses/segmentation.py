"""The segmentation loss of equation (8), over valid pixels."""

from keras import KerasTensor, ops

from tfseg.precision import at_least_float32

IGNORE_LABEL = 255


def mask_cross_entropy(mask: KerasTensor, mask_logits: KerasTensor) -> tuple[KerasTensor, KerasTensor]:
    """e_s of equation (8): 2-way softmax cross-entropy, summed over the pixels that are not ignored.

    Sum and count are returned apart, since the mean is taken over the valid pixels of the whole global
    batch (SPEC 5), which no single replica or micro-batch knows.

    Args:
        mask: uint8 `[B, H, W]`: 0 background, 1 the label, 255 ignored.
        mask_logits: `[B, H, W, 2]`, channel 0 background and 1 foreground.

    Returns:
        `(loss_sum, valid_pixels)`, scalars, float32 at least, in nats and pixels.
    """
    logits = ops.cast(mask_logits, at_least_float32(mask_logits.dtype))
    margin = logits[..., 1] - logits[..., 0]
    foreground = ops.cast(ops.equal(mask, 1), logits.dtype)
    valid = ops.cast(ops.not_equal(mask, IGNORE_LABEL), logits.dtype)
    # -log softmax of two classes is softplus of the margin against the true one; no difference of large
    # numbers, so that confident pixels keep their small losses and gradients.
    loss = ops.softplus((1.0 - 2.0 * foreground) * margin)
    return ops.sum(loss * valid), ops.sum(valid)


def mean_over_valid(loss_sum: KerasTensor, valid_pixels: KerasTensor) -> KerasTensor:
    """Divides, giving zero when no pixel is valid, as a batch of target pairs has none (SPEC 5)."""
    return loss_sum / ops.maximum(ops.cast(valid_pixels, loss_sum.dtype), 1.0)
