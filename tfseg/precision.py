"""The precision of what half precision cannot hold: sums over a map, logits and losses."""

import keras


def at_least_float32(dtype: str | None = None) -> str:
    """Returns float32 for half precision, and float64 for float64.

    Args:
        dtype: A floating dtype; the compute dtype of the current policy by default.
    """
    return keras.backend.result_type(dtype or keras.config.dtype_policy().compute_dtype, "float32")
