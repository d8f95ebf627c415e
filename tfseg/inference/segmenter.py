"""`Segmenter`: images of any kind in, label maps at their own size out; the order of SPEC 7's steps."""

import contextlib
import dataclasses
import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tfseg import stopping
from tfseg.data.images import ImageLike, read_image
from tfseg.data.labels import LabelMap
from tfseg.errors import InputError
from tfseg.inference import crf as crf_module
from tfseg.inference.crf import CrfParameters
from tfseg.inference.networks import KerasNetwork, Network, PairMaps, SavedModelNetwork
from tfseg.inference.options import SegmenterOptions
from tfseg.inference.postprocessing import image_probabilities, merge, predicted_labels
from tfseg.inference.preprocessing import to_square
from tfseg.inference.segmentation import Segmentation
from tfseg.inference.streams import batches, ordered_map
from tfseg.model_dir import ModelDir, find_model

_READERS = 4

Labels = Sequence[int | str] | int | str


@dataclasses.dataclass(frozen=True)
class Query:
    """An image of a stream with labels of its own.

    ```python
    list(segmenter.segment_many([Query("cat.jpg", ["cat"]), Query("street.jpg")]))
    ```

    Attributes:
        image: The image.
        labels: Ids or names; empty for an image of background alone; None to predict them.
        upright: Whether EXIF rotation is applied, see `read_image`.
        name: What error messages call the image.
    """

    image: ImageLike
    labels: Labels | None = None
    upright: bool = True
    name: str | None = None


class _Input(NamedTuple):
    """An image that is ready for the network."""

    image: np.ndarray
    square: np.ndarray
    labels: tuple[int, ...] | None


class _Output(NamedTuple):
    """What the network said of an image; `maps` are those of its labels."""

    image: np.ndarray
    labels: tuple[int, ...]
    maps: PairMaps
    label_probabilities: np.ndarray | None


class Segmenter:
    """Segments images with a trained network; the network is traced once and reused.

    ```python
    segmenter = Segmenter.load("runs/demo/model", label_threshold=0.5)
    segmenter.segment("cat.jpg").label_map
    for result in segmenter.segment_many(paths, labels=["cat", "dog"]):
        ...
    ```

    Args:
        network: A `KerasNetwork`, a `SavedModelNetwork`, or anything else that is a
            `tfseg.inference.networks.Network`.
        label_map: The labels that it was trained on.
        **options: Of `SegmenterOptions`, those that make label maps of its answers.

    Attributes:
        label_map: As given.
        options: All `SegmenterOptions`, for the record.
    """

    def __init__(self, network: Network, label_map: LabelMap, **options: Any) -> None:
        self._network = network
        self.label_map = label_map
        self.options = SegmenterOptions(**options)
        self._allowed = label_map.allowed_ids(self.options.label_domain)

    @classmethod
    def load(cls, model: str | Path | ModelDir, **options: Any) -> "Segmenter":
        """Loads what training or export wrote.

        Args:
            model: A `model_dir`; or a SavedModel's version directory, or the folder of versions, of
                which the newest is taken.
            **options: Of `SegmenterOptions`.

        Raises:
            InputError: If there is neither, a part of it is missing, or a SavedModel is to change.
        """
        wanted = SegmenterOptions(**options)
        found = model if isinstance(model, ModelDir) else find_model(model)
        if isinstance(found, ModelDir):
            directory, stage = found.with_mean(wanted.bgr_mean), wanted.classifier_stage
            network: Network = KerasNetwork(
                directory.load("joint", wanted.checkpoint),
                directory.load(stage) if directory.newest(stage) else None,
                directory.config.decoder_input,
                directory.config.image_fit,
            )
        else:
            wanted.require_unchanged_network(found.path)
            network = SavedModelNetwork(found.path)
        return cls(network, found.label_map, **options)

    def __repr__(self) -> str:
        size, found = self._network.image_size, self.label_map
        targets = len(found.ids("target"))
        predicts = "predicts labels" if self.can_predict_labels else "labels must be given"
        return (
            f"Segmenter({size}x{size} pixels, {found.num_labels} labels of {found.name} ({targets} target), "
            f"{predicts})"
        )

    @property
    def can_predict_labels(self) -> bool:
        """Whether labels may be left out."""
        return self._network.can_classify

    def segment(
        self, image: ImageLike, labels: Labels | None = None, *, crf: CrfParameters | None = None
    ) -> Segmentation:
        """Segments one image.

        Args:
            image: Path, bytes or array, see `tfseg.data.images.read_image`.
            labels: Ids or names; None to predict them.
            crf: Parameters of the CRF, for instance `crf_parameters("official")`; None for none.

        Raises:
            InputError: If the image cannot be read or a label is unknown.
        """
        (output,) = self._run_batch([self._prepare(Query(image, labels))], batch_size=8)
        return self._finish(output, partial(_refine_here, crf))

    def segment_many(
        self,
        images: Iterable[ImageLike | Query | Callable[[], Query]],
        labels: Labels | None = None,
        *,
        crf: CrfParameters | None = None,
        batch_size: int = 8,
        crf_processes: int = 1,
        keep_errors: bool = False,
    ) -> Iterator[Segmentation | InputError]:
        """Segments a stream of images, in order.

        Threads read ahead and restore sizes, while the network works on batches of (image, label)
        pairs.

        Args:
            images: Images; `Query`s with labels of their own; or functions that return a
                `Query`, called in a reader's thread. Taken lazily.
            labels: Ids or names for all images that are no `Query`; None to predict them.
            crf: Parameters of the CRF; None for none.
            batch_size: Of images to encode, and of pairs to decode.
            crf_processes: How many images the CRF refines at once, each in a process of its own;
                1 stays in this process. The calling script needs its `if __name__ == "__main__"`.
            keep_errors: Whether an image that cannot be read yields its `InputError` in its place
                instead of raising it.

        Raises:
            InputError: See `keep_errors`; an unknown label always raises.
        """
        if labels is not None:
            labels = self.label_map.resolve(labels)
        queries = (q if isinstance(q, Query) or callable(q) else Query(q, labels) for q in images)
        with contextlib.ExitStack() as stack:
            threads = stack.enter_context(ThreadPoolExecutor(_READERS + crf_processes))
            refine = partial(_refine_here, crf)
            if crf is not None and crf_processes > 1:
                # Fork would copy TensorFlow's threads half-way through their work.
                spawn = multiprocessing.get_context("spawn")
                pool = ProcessPoolExecutor(crf_processes, spawn, stopping.leave_to_parent)
                stack.callback(pool.shutdown, cancel_futures=True)
                refine = partial(_refine_there, pool, crf)
            prepare = partial(self._prepare, keep_errors=keep_errors)
            inputs = ordered_map(threads, prepare, queries, ahead=2 * batch_size)
            outputs = self._run(inputs, batch_size)
            finish = partial(self._finish, refine=refine)
            yield from ordered_map(threads, finish, outputs, ahead=batch_size + crf_processes)

    def _prepare(self, query: Query | Callable[[], Query], keep_errors: bool = False) -> _Input | InputError:
        try:
            if callable(query):
                query = query()
            image = read_image(query.image, upright=query.upright, name=query.name)
        except InputError as error:
            if not keep_errors:
                raise
            return error
        if query.labels is not None:
            labels = self.label_map.resolve(query.labels)
        elif self.can_predict_labels:
            labels = None
        else:
            raise InputError(
                "no labels are given and the model holds no classifier that could predict them; "
                f"give labels of {self.label_map.name}, or train the classifier stage"
            )
        square = to_square(image, self._network.image_size, self._network.image_fit)
        return _Input(image, square, labels)

    def _run(self, inputs: Iterable[_Input | InputError], batch_size: int) -> Iterator[_Output | InputError]:
        """Runs the network on batches of what could be read, and keeps each error in its place."""
        for batch in batches(inputs, batch_size):
            whole = [item for item in batch if not isinstance(item, InputError)]
            outputs = iter(self._run_batch(whole, batch_size) if whole else [])
            for item in batch:
                yield item if isinstance(item, InputError) else next(outputs)

    def _run_batch(self, batch: list[_Input], batch_size: int) -> list[_Output]:
        """Predicts labels where none are given, encodes each image once, and decodes (image, label) pairs."""
        squares = np.stack([item.square for item in batch])
        labels = [item.labels for item in batch]
        scores: list[np.ndarray | None] = [None] * len(batch)
        asked = [i for i, given in enumerate(labels) if given is None]
        if asked:
            for i, score in zip(asked, self._network.classify(squares[asked]), strict=True):
                scores[i] = score
                labels[i] = predicted_labels(score, self._allowed, self.options.label_threshold)
        pairs = np.array([(i, label) for i, ids in enumerate(labels) for label in ids], np.int32)
        maps = self._locate(squares, pairs.reshape(-1, 2), batch_size)
        ends = np.cumsum([len(ids) for ids in labels])
        return [
            _Output(item.image, ids, _part(maps, end - len(ids), end), score)
            for item, ids, end, score in zip(batch, labels, ends, scores, strict=True)
        ]

    def _locate(self, squares: np.ndarray, pairs: np.ndarray, batch_size: int) -> PairMaps:
        if not len(pairs):
            size = self._network.image_size
            return PairMaps(*(np.zeros((0, side, side), np.float32) for side in (size, 1, 1)))
        encoded = self._network.encode(squares)
        parts = [
            self._network.locate(encoded, *pairs[start : start + batch_size].T)
            for start in range(0, len(pairs), batch_size)
        ]
        return PairMaps(
            *(None if column[0] is None else np.concatenate(column) for column in zip(*parts, strict=True))
        )

    def _finish(
        self, output: _Output | InputError, refine: Callable[..., np.ndarray | None]
    ) -> Segmentation | InputError:
        if isinstance(output, InputError):
            return output
        size, fit = output.image.shape[:2], self._network.image_fit
        factor = self.options.background_factor
        probabilities = image_probabilities(output.maps.probability, *size, factor, fit)
        foreground = refine(output.image, probabilities) if output.labels else None
        return Segmentation(
            image=output.image,
            label_map=merge(probabilities, output.labels, foreground),
            labels=output.labels,
            names=tuple(self.label_map.label(label).name for label in output.labels),
            probabilities=probabilities,
            foreground=foreground,
            attention=output.maps.attention,
            densified=output.maps.densified,
            label_probabilities=output.label_probabilities,
            image_fit=fit,
        )


def _part(maps: PairMaps, start: int, end: int) -> PairMaps:
    return PairMaps(*(None if values is None else values[start:end] for values in maps))


def _refine_here(
    crf: CrfParameters | None, image: np.ndarray, probabilities: np.ndarray
) -> np.ndarray | None:
    return None if crf is None else crf_module.refine(image, probabilities, crf)


def _refine_there(
    pool: ProcessPoolExecutor, crf: CrfParameters, image: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    return pool.submit(crf_module.refine, image, probabilities, crf).result()
