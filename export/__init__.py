"""Export of trained networks for TensorFlow Serving and everything else that loads a SavedModel."""
