"""Writes a small split by the contract of the records, without the builders."""

import hashlib
import io

import tensorflow as tf
from PIL import Image

from tfseg.data.records import FRAME_BYTES, ImageRecord, RecordInfo, index_json, serialize


def png(array):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return buffer.getvalue()


def write_split(folder, label_map, samples, name="target_val", domain="target"):
    """`samples`: (id, image, mask or None)."""
    folder.mkdir(parents=True, exist_ok=True)
    shard = f"{name}-00000-of-00001.tfrecord"
    infos, offset = [], 0
    with tf.io.TFRecordWriter(str(folder / shard)) as writer:
        for image_id, image, mask in samples:
            height, width = image.shape[:2]
            own = set(label_map.ids(domain))
            labels = () if mask is None else tuple(sorted(own.intersection(mask.ravel().tolist())))
            record = ImageRecord(
                png(image),
                "png",
                f"{image_id}.png",
                image_id,
                height,
                width,
                labels,
                None if mask is None else png(mask),
            )
            data = serialize(record)
            writer.write(data)
            infos.append(RecordInfo(0, offset, len(data), image_id, labels, mask is not None, height, width))
            offset += FRAME_BYTES + len(data)
    content = (folder / shard).read_bytes()
    summary = {
        "split": name,
        "domain": domain,
        "label_map": label_map.to_dict(),
        "sha256": {shard: hashlib.sha256(content).hexdigest()},
        "bytes": {shard: len(content)},
    }
    (folder / f"{name}.json").write_text(index_json(summary, infos))
