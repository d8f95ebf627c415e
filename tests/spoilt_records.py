"""Splits with records that cannot be used, each in a way of its own; only the first has wrong checksums."""

import hashlib
import json

import numpy as np
import tensorflow as tf
from split_files import png

from tfseg.data.records import FRAME_BYTES, HEADER_BYTES, Split, index_json

SPOILS = {
    "damaged bytes": None,
    "no tf.Example": lambda example: b"\x07never a protobuf",
    "not what the index says": lambda example: _set(example, "image/id", b"another"),
    "image cannot be decoded": lambda example: _set(example, "image/encoded", b"\xff\xd8\xff no image"),
    "other pixels than in evaluation": lambda example: _set(example, "image/encoded", _transparent(example)),
    "mask cannot be decoded": lambda example: _set(example, "mask/encoded", b"\x89PNG no mask"),
    "mask of another size": lambda example: _set(example, "mask/encoded", png(np.zeros((3, 5), np.uint8))),
    "mask with strange ids": lambda example: _set(example, "mask/encoded", _strange(example)),
}
"""By the kind that is reported: what becomes of a tf.Example."""


def spoil(folder, name, kinds):
    """Rewrites a split of one shard. `kinds`: what happens to a record, by its number."""
    split = Split.load(folder, name)
    (shard,) = split.shards
    infos, offset = [], 0
    examples = [split.read(index) for index in range(len(split))]
    with tf.io.TFRecordWriter(str(folder / shard)) as writer:
        for index, (info, data) in enumerate(zip(split.infos, examples, strict=True)):
            if change := SPOILS[kinds[index]] if index in kinds else None:
                data = change(tf.train.Example.FromString(data))
            writer.write(data)
            infos.append(info._replace(offset=offset, length=len(data)))
            offset += FRAME_BYTES + len(data)
    content = bytearray((folder / shard).read_bytes())
    for index, kind in kinds.items():
        if kind == "damaged bytes":
            content[infos[index].offset + HEADER_BYTES + 20] ^= 8
    (folder / shard).write_bytes(content)
    summary = json.loads((folder / f"{name}.json").read_text())
    del summary["records"], summary["record_fields"]
    summary |= {"sha256": {shard: hashlib.sha256(content).hexdigest()}, "bytes": {shard: len(content)}}
    (folder / f"{name}.json").write_text(index_json(summary, infos))


def _set(example, feature, value):
    example.features.feature[feature].bytes_list.value[0] = value
    return example.SerializeToString()


def _size(example):
    return tuple(
        example.features.feature[f"image/{side}"].int64_list.value[0] for side in ("height", "width")
    )


def _transparent(example):
    return png(np.zeros((*_size(example), 4), np.uint8))


def _strange(example):
    return png(np.full(_size(example), 200, np.uint8))
