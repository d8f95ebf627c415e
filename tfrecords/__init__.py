"""Dataset builders: from COCO and VOC folders to shards of tf.Example records."""

import tfseg  # noqa: F401  It takes Ctrl-C while a command is imported.
