"""TransferNet in TensorFlow/Keras: segment categories for which nobody drew a mask."""

import sys
from typing import Any

from tfseg import stopping

if sys.argv[:1] == ["-m"]:  # Python looks for a command to run, which imports more.
    stopping.end_imports()

__version__ = "0.1.0"
__all__ = ["Segmenter", "__version__"]


def __getattr__(name: str) -> Any:
    """Imports `Segmenter`, and TensorFlow with it, when it is asked for: record builders need neither."""
    if name == "Segmenter":
        from tfseg.inference.segmenter import Segmenter

        return Segmenter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
