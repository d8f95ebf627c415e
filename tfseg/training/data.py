"""What a stage is trained on: one stream of pairs a domain, and the batches made of them."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from tfseg import cli
from tfseg.config import ModelConfig
from tfseg.data.bad_records import BadRecords
from tfseg.data.batches import Stream, explain_failure, training_batches
from tfseg.data.labels import LabelMap
from tfseg.data.records import Split
from tfseg.data.sampling import PairStream
from tfseg.data.transform import Transform
from tfseg.errors import InputError
from tfseg.training.options import TrainingOptions
from tfseg.training.step import Batch


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """The records of a stage, opened.

    ```python
    data = TrainingData.open(options)
    data.next(iter(data.batches()), step=0)["target"]["image"]  # float32 [b, S, S, 3]
    ```

    Attributes:
        options: What is trained and how.
        streams: Pairs by domain, `source` and `target`, or one of them.
        label_map: Of all splits.
        config: The network's, for these labels.
        bad_records: Those that were skipped.
    """

    options: TrainingOptions
    streams: dict[str, Stream]
    label_map: LabelMap
    config: ModelConfig
    bad_records: BadRecords

    @classmethod
    def open(cls, options: TrainingOptions, streams: dict[str, Stream] | None = None) -> "TrainingData":
        """Opens the splits of a stage.

        Args:
            options: Name the splits.
            streams: Pairs to train on instead.

        Raises:
            InputError: If a split is missing, of the other domain, or of another label map.
        """
        with cli.working("reading what the records hold"):
            streams = streams or _open_streams(options)
        maps = [stream.split.label_map for stream in streams.values()]
        if any(other != maps[0] for other in maps):
            raise InputError(
                f"{options.data_dir}: the splits were built with different label maps; build both with one"
            )
        config = options.model_config(maps[0].num_labels)
        return cls(options, streams, maps[0], config, BadRecords(options.on_bad_record))

    def batches(
        self, start_step: int = 0, batch_size: int | None = None, parts: int = 1, own: range = range(1)
    ) -> tf.data.Dataset:
        """Returns the global batches from an update on, or parts of them; see `training_batches`.

        Args:
            start_step: Updates done.
            batch_size: Pairs of a batch; those of an update if None.
            parts: Parts that a batch is cut into.
            own: Numbers of those that are read.
        """
        options, size = self.options, self.config.image_size
        resized = options.resize_to or round(size * 330 / 320)
        transform = Transform(size, resized, options.mirror, fit=self.config.image_fit)
        return training_batches(
            self.streams,
            transform,
            batch_size or options.batch_size,
            options.seed,
            start_step,
            self.bad_records,
            parts,
            own,
        )

    def reader(self, strategy: tf.distribute.Strategy, start_step: int) -> Iterator[Batch]:
        """Returns the batches from an update on, each replica's part with itself.

        Args:
            strategy: Its replicas, in order, get the parts of a batch; a process reads those of its own.
            start_step: Updates done.
        """

        def own_parts(context: tf.distribute.InputContext) -> tf.data.Dataset:
            parts = context.num_replicas_in_sync
            local = parts // context.num_input_pipelines
            first = context.input_pipeline_id * local
            return self.batches(start_step, parts=parts, own=range(first, first + local))

        # An iterator that copies to devices ahead takes up to a minute to end.
        options = tf.distribute.InputOptions(experimental_fetch_to_device=False)
        return iter(strategy.distribute_datasets_from_function(own_parts, options))

    def next(self, reader: Iterator[Batch], step: int) -> Batch:
        """Reads the batch of update `step`, counted from 0.

        Raises:
            InputError: If a record cannot be read; names it.
        """
        try:
            return next(reader)
        except tf.errors.OpError as error:
            raise explain_failure(self.streams, self.options.batch_size, step, error) from error

    def description(self) -> dict[str, Any]:
        """Returns what the stage is trained on, by domain, for the record of the run."""
        return {
            domain: {
                "split": stream.split.name,
                "images": len(stream.images),
                "pairs": len(stream),
                "masks": stream.num_masks,
                "fraction": self.options.source_fraction if domain == "source" else 1.0,
                "subset_seed": self.options.subset_seed,
                "sha256": stream.split.summary["sha256"],
            }
            for domain, stream in self.streams.items()
        }


def _open_streams(options: TrainingOptions) -> dict[str, Stream]:
    streams = {}
    for domain, name in (("source", options.source_split), ("target", options.target_split)):
        if not name:
            continue
        split = Split.load(options.data_dir, name)
        if split.domain != domain:
            raise InputError(f"--{domain}_split={name}: was built as {split.domain} records")
        if domain == "target":
            masks = options.target_masks
        elif options.stage == "joint":
            masks = None
        else:  # Not trained on: they tell how much of the attention lies on the object.
            masks = "available" if options.stage == "attention" else 0
        streams[domain] = PairStream(
            split,
            options.seed,
            fraction=options.source_fraction if domain == "source" else 1.0,
            subset_seed=options.subset_seed,
            masks=masks,
        )
    return streams
