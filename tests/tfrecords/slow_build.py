"""Builds a split slowly, to be killed on the way: slow_build.py OUTPUT_DIR PIDS_DIR SECONDS WORKERS."""

import functools
import os
import sys
import time
from pathlib import Path

from tfrecords.shards import SplitHead, write_split
from tfseg.data.labels import Label, LabelMap
from tfseg.data.records import ImageRecord

LABELS = LabelMap("one", (Label(1, "cat", "target"), Label(2, "cup", "source")))
HEAD = SplitHead("train", "source", LABELS, 40, {}, {})


def make_record(pids, seconds, number):
    time.sleep(seconds)
    if pids:
        (pids / str(os.getpid())).touch()
    return ImageRecord(bytes([number]) * 1000, "jpeg", f"{number}.jpg", str(number), 8, 8, (2,), None)


def build(output_dir, pids=None, seconds=0.0, workers=1, num_shards=8):
    maker = functools.partial(make_record, pids, seconds)
    return write_split(output_dir, HEAD, range(40), maker, num_shards, workers)


if __name__ == "__main__":
    build(sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4]))
