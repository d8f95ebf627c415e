"""Dataset builders: from COCO and VOC folders to shards of tf.Example records."""
