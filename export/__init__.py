"""Export of trained networks for TensorFlow Serving and everything else that loads a SavedModel."""

import tfseg  # noqa: F401  It takes Ctrl-C while a command is imported.
