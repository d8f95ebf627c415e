"""Segments many images with an export in an Apache Beam pipeline; a second run goes on where the first ended.

Writes OUTPUT_DIR/masks/ and, for each shard, index-*.jsonl (one line an image) and errors-*.jsonl (the images
that could not be segmented). A shard whose index is there is finished and is skipped.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, NamedTuple

from tfseg import cli
from tfseg.commands import called
from tfseg.errors import InputError
from tfseg.files import require_output_folder

if TYPE_CHECKING:
    from .client import LocalModel

EXAMPLES = (
    "--export_dir=runs/demo/export --images='photographs/*.jpg' --output_dir=segmented",
    "--export_dir=/models/tfseg --records='records/val-*.tfrecord' --output_dir=segmented "
    "-- --runner=FlinkRunner --parallelism=8",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Which images an export segments; each field but `runner_flags` is a flag."""

    export_dir: str = cli.flag("Folder of versions that export.saved_model wrote; every worker reads it.")
    output_dir: str = cli.flag("Folder of the masks and the index.")
    images: tuple[str, ...] = cli.flag("Glob of image files; may be repeated.", default=())
    records: tuple[str, ...] = cli.flag("Glob of TFRecords of tfrecords; may be repeated.", default=())
    label: tuple[str, ...] = cli.flag("Name or id to look for; may be repeated; none: predicted.", default=())
    batch_size: int = cli.flag("Images of one call.", default=8, lower=1)
    shard_size: int = cli.flag("Image files of a shard; a TFRecord is one itself.", default=128, lower=1)
    runner_flags: tuple[str, ...] = cli.words("[-- RUNNER_FLAG ...]")

    def __post_init__(self) -> None:
        """Refuses a call without images."""
        if bool(self.images) == bool(self.records):
            raise InputError("give one of --images and --records")


class Shard(NamedTuple):
    """A piece of work.

    Attributes:
        number: From 0.
        count: Of all shards.
        paths: Image files, or one TFRecord.
    """

    number: int
    count: int
    paths: tuple[str, ...]

    def name(self, kind: str) -> str:
        """Returns the name of one of its files of results."""
        return f"{kind}-{self.number:05d}-of-{self.count:05d}.jsonl"


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("export.batch_predict", __doc__, BatchOptions, _run, argv, EXAMPLES)


def _run(options: BatchOptions) -> int:
    from tfseg.beam import make_pipeline
    from tfseg.model_dir import find_saved_model

    pipeline = make_pipeline(options.runner_flags)
    import apache_beam as beam

    version_dir = find_saved_model(Path(options.export_dir))
    if version_dir is None:
        raise InputError(
            f"{options.export_dir}: holds no SavedModel; {called('export.saved_model')} writes one"
        )
    if "://" not in options.output_dir:
        require_output_folder(options.output_dir, "--output_dir=")
    shards = _shards(options)
    waiting = [shard for shard in shards if not _exists(_join(options.output_dir, shard.name("index")))]
    print(f"{len(shards)} shards, {len(shards) - len(waiting)} finished before")
    _ = (
        pipeline
        | beam.Create(waiting, reshuffle=False)
        | beam.Reshuffle()  # Shards go to all workers.
        | beam.ParDo(_segment_fn(str(version_dir), options))
    )
    start = time.monotonic()
    result = pipeline.run()
    result.wait_until_finish()
    seconds = time.monotonic() - start
    counters = {
        counter.key.metric.name: counter.committed or counter.attempted
        for counter in result.metrics().query()["counters"]
        if counter.key.metric.namespace == "tfseg"
    }
    segmented, failed = counters.get("segmented", 0), counters.get("failed", 0)
    print(
        f"{segmented} images segmented, {failed} failed (errors-*.jsonl): {options.output_dir}; "
        f"{seconds:.1f} s, {segmented / seconds:.1f} images/s, start of the workers included"
    )
    return 1 if failed else 0


def _shards(options: BatchOptions) -> list[Shard]:
    from apache_beam.io.filesystems import FileSystems

    paths: list[str] = []
    for pattern in (*options.images, *options.records):
        (match,) = FileSystems.match([pattern])
        if not match.metadata_list:
            raise InputError(f"{pattern}: names no file")
        paths += [metadata.path for metadata in match.metadata_list]
    paths = sorted(dict.fromkeys(paths))
    size = options.shard_size if options.images else 1
    count = -(-len(paths) // size)
    return [Shard(i, count, tuple(paths[i * size : (i + 1) * size])) for i in range(count)]


def _segment_fn(version_dir: str, options: BatchOptions) -> Any:
    """Returns the DoFn; a function, for its base class is Beam's."""
    import apache_beam as beam
    from apache_beam.metrics import Metrics
    from apache_beam.utils.shared import Shared

    class SegmentShard(beam.DoFn):
        """Segments one shard and writes its results, the index last."""

        def __init__(self) -> None:
            self._shared = Shared()
            self._model: LocalModel | None = None
            self._segmented = Metrics.counter("tfseg", "segmented")
            self._failed = Metrics.counter("tfseg", "failed")

        def setup(self) -> None:
            from .client import LocalModel

            # One model a process, whatever the number of threads.
            self._model = self._shared.acquire(lambda: LocalModel(version_dir))

        def process(self, shard: Shard) -> None:
            index, errors = _segment_shard(self._model, shard, options)
            self._segmented.inc(len(index))
            self._failed.inc(len(errors))

    return SegmentShard()


def _segment_shard(model: "LocalModel", shard: Shard, options: BatchOptions) -> tuple[list[dict], list[dict]]:
    from .client import RefusedError, segment

    index, errors = [], []
    for batch in _batches(shard, options, errors):
        results = segment(model, [data for _, data in batch], options.label)
        for (name, _), result in zip(batch, results, strict=True):
            if isinstance(result, RefusedError):
                errors.append({"image": name, "error": str(result)})
            else:
                path = f"masks/{shard.number:05d}/{len(index):05d}-{PurePosixPath(name).stem}.png"
                index.append(_write_result(name, result, path, options.output_dir))
    _write_lines(_join(options.output_dir, shard.name("errors")), errors)
    _write_lines(_join(options.output_dir, shard.name("index")), index)
    return index, errors


def _batches(shard: Shard, options: BatchOptions, errors: list[dict]) -> Iterator[list[tuple[str, bytes]]]:
    """Yields (name, file) in batches; what cannot be read is added to `errors`."""
    from .client import ClientError, prepare

    batch = []
    for name, data in _files(shard, is_records=bool(options.records)):
        try:
            if isinstance(data, Exception):
                raise ClientError(f"{name}: cannot be read ({data})")
            sent, _ = prepare(data, name)
        except ClientError as error:
            errors.append({"image": name, "error": str(error)})
            continue
        batch.append((name, sent))
        if len(batch) == options.batch_size:
            yield batch
            batch = []
    if batch:
        yield batch


def _files(shard: Shard, is_records: bool) -> Iterator[tuple[str, bytes | Exception]]:
    if is_records:
        import tensorflow as tf

        for serialized in tf.data.TFRecordDataset(list(shard.paths)).as_numpy_iterator():
            features = tf.train.Example.FromString(serialized).features.feature
            name = features["image/filename"].bytes_list.value
            yield name[0].decode() if name else shard.paths[0], features["image/encoded"].bytes_list.value[0]
        return
    from apache_beam.io.filesystems import FileSystems

    for path in shard.paths:
        try:
            with FileSystems.open(path, compression_type="uncompressed") as file:
                yield path, file.read()
        except OSError as error:
            yield path, error


def _write_result(name: str, result: Any, path: str, output_dir: str) -> dict[str, Any]:
    from .client import encode_mask

    _write(_join(output_dir, path), encode_mask(result.mask))
    height, width = result.mask.shape
    found = {"image": name, "mask": path, "height": height, "width": width}
    pixels = {
        label_name: int((result.mask == label).sum())
        for label, label_name in zip(result.labels, result.names, strict=True)
    }
    found |= {"labels": result.labels, "names": result.names, "pixels": pixels}
    if result.scores is not None:
        found["scores"] = [round(score, 4) for score in result.scores]
    return found


def _write_lines(path: str, lines: list[dict]) -> None:
    _write(path, "".join(json.dumps(line) + "\n" for line in lines).encode())


def _write(path: str, data: bytes) -> None:
    """Writes a whole file or none, wherever Beam can write."""
    from apache_beam.io.filesystems import FileSystems

    folder = path.rpartition("/")[0]
    if "://" not in path and folder and not FileSystems.exists(folder):
        try:
            FileSystems.mkdirs(folder)
        except OSError:
            if not FileSystems.exists(folder):  # Another worker may have made it.
                raise
    with FileSystems.create(f"{path}.tmp", "application/octet-stream", "uncompressed") as file:
        file.write(data)
    FileSystems.rename([f"{path}.tmp"], [path])


def _exists(path: str) -> bool:
    from apache_beam.io.filesystems import FileSystems

    return FileSystems.exists(path)


def _join(folder: str, name: str) -> str:
    return f"{folder.rstrip('/')}/{name}"


if __name__ == "__main__":
    # By its own name, which workers can import.
    from . import batch_predict

    sys.exit(batch_predict.main())
