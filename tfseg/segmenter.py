"""`Segmenter`: images of any kind in, label maps at their own size out."""

import contextlib
import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import keras
import numpy as np

from tfseg.data.labels import LabelMap
from tfseg.errors import InputError
from tfseg.inference import crf as crf_module
from tfseg.inference.crf import CrfParameters
from tfseg.inference.geometry import from_square, to_square
from tfseg.inference.images import ImageLike, read_image
from tfseg.inference.labels import THRESHOLD, domain_ids, predicted_labels, resolve_labels
from tfseg.inference.merge import BACKGROUND_FACTOR, halve_background, merge
from tfseg.inference.networks import KerasNetwork, Located, Network, SavedModelNetwork
from tfseg.inference.segmentation import Labels, Query, Segmentation
from tfseg.inference.streams import batches, ordered_map

_READERS = 4


class _Prepared(NamedTuple):
    image: np.ndarray
    square: np.ndarray
    labels: tuple[int, ...] | None


class _Found(NamedTuple):
    image: np.ndarray
    labels: tuple[int, ...]
    located: list[Located]
    label_probabilities: np.ndarray | None


class Segmenter:
    """Segments images with a trained network; the network is traced once and reused.

    Args:
        model: Segmentation network from `tfseg.models`, or anything that is a
            `tfseg.inference.networks.Network`.
        classifier: From `build_classifier`, to predict labels; None when labels are always given.
        label_map: The labels that both were trained on.
        decoder_input: As in the model's `ModelConfig`.
        label_domain: Which labels may be predicted: `target`, `source` or `all`.
        label_threshold: Probability from which a label counts as present.
        background_factor: On the background's probability before it is renormalised.

    Attributes:
        label_map: As given.
        options: `label_domain`, `label_threshold` and `background_factor`, and those of `load`, for the
            record.
    """

    def __init__(
        self,
        model: keras.Model | Network,
        classifier: keras.Model | None,
        label_map: LabelMap,
        *,
        decoder_input: str = "densified",
        label_domain: str = "target",
        label_threshold: float = THRESHOLD,
        background_factor: float = BACKGROUND_FACTOR,
    ) -> None:
        if isinstance(model, keras.Model):
            model = KerasNetwork(model, classifier, decoder_input)
        if not 0 <= label_threshold <= 1:
            raise InputError(f"label threshold {label_threshold}: must be in 0 to 1")
        if not background_factor > 0:
            raise InputError(f"background factor {background_factor}: must be above 0")
        self._network: Network = model
        self._allowed = domain_ids(label_map, label_domain)
        self._threshold = label_threshold
        self._background_factor = background_factor
        self.label_map = label_map
        self.options = {
            "label_domain": label_domain,
            "label_threshold": label_threshold,
            "background_factor": background_factor,
        }

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        bgr_mean: Literal["training", "inference"] = "training",
        classifier_stage: Literal["classifier", "encoder"] = "classifier",
        **options: Any,
    ) -> "Segmenter":
        """Loads what training or export wrote.

        Args:
            path: A `model_dir`; or a SavedModel's version directory, or the folder of versions, of
                which the newest is taken.
            bgr_mean: Mean that the networks subtract: the one of their training, or the one of the
                authors' inference script, which has more digits (SPEC 12 row 16).
            classifier_stage: Stage whose network names labels: the separate classifier, or stage 0.
            **options: `label_domain`, `label_threshold`, `background_factor`, as the class.

        Raises:
            InputError: If there is neither, a part of it is missing, or a SavedModel is to change.
        """
        path = Path(path)
        own = {"bgr_mean": bgr_mean, "classifier_stage": classifier_stage}
        if (path / "model.json").is_file():
            from tfseg.training import checkpoints

            model_dir = checkpoints.read_model_dir(path).with_mean(bgr_mean)
            segmenter = cls(
                model_dir.load("joint"),
                model_dir.load(classifier_stage) if model_dir.newest(classifier_stage) else None,
                model_dir.label_map,
                decoder_input=model_dir.config.decoder_input,
                **options,
            )
            segmenter.options |= own
            return segmenter
        export = find_saved_model(path)
        if export is None:
            raise InputError(
                f"{path}: holds no model; needed is a model_dir (with model.json) or a SavedModel "
                "(with saved_model.pb, or in folders named 1, 2, ...)"
            )
        if own != {"bgr_mean": "training", "classifier_stage": "classifier"}:
            raise InputError(f"{export}: mean and classifier of a SavedModel are fixed; give its model_dir")
        label_map = LabelMap.load(export / "assets.extra" / "labels.json")
        return cls(SavedModelNetwork(export), None, label_map, **options)

    @property
    def can_predict_labels(self) -> bool:
        """Whether labels may be left out."""
        return self._network.can_classify

    def segment(
        self, image: ImageLike, labels: Labels | None = None, *, crf: CrfParameters | None = None
    ) -> Segmentation:
        """Segments one image.

        Args:
            image: Path, bytes or array, see `tfseg.inference.images.read_image`.
            labels: Ids or names; None to predict them.
            crf: Parameters of the CRF, for instance `crf_parameters("official")`; None for none.

        Raises:
            InputError: If the image cannot be read or a label is unknown.
        """
        prepared = self._prepare(Query(image, labels))
        (found,) = self._find([prepared], batch_size=8)
        return self._finish(found, partial(_refine_here, crf))

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
            labels = resolve_labels(self.label_map, labels)
        queries = (q if isinstance(q, Query) or callable(q) else Query(q, labels) for q in images)
        with contextlib.ExitStack() as stack:
            threads = stack.enter_context(ThreadPoolExecutor(_READERS + crf_processes))
            refine = partial(_refine_here, crf)
            if crf is not None and crf_processes > 1:
                # Fork would copy TensorFlow's threads half-way through their work.
                spawn = multiprocessing.get_context("spawn")
                pool = stack.enter_context(ProcessPoolExecutor(crf_processes, mp_context=spawn))
                refine = partial(_refine_there, pool, crf)
            prepare = partial(self._prepare, keep_errors=keep_errors)
            prepared = ordered_map(threads, prepare, queries, ahead=2 * batch_size)
            found = self._find(prepared, batch_size)
            finish = partial(self._finish, refine=refine)
            yield from ordered_map(threads, finish, found, ahead=batch_size + crf_processes)

    def _prepare(
        self, query: Query | Callable[[], Query], keep_errors: bool = False
    ) -> _Prepared | InputError:
        try:
            if callable(query):
                query = query()
            image = read_image(query.image, upright=query.upright, name=query.name)
        except InputError as error:
            if not keep_errors:
                raise
            return error
        labels = self._resolve(query.labels)
        return _Prepared(image, to_square(image, self._network.image_size), labels)

    def _resolve(self, labels: Labels | None) -> tuple[int, ...] | None:
        if labels is not None:
            return resolve_labels(self.label_map, labels)
        if not self.can_predict_labels:
            raise InputError(
                "no labels are given and the model holds no classifier that could predict them; "
                f"give labels of {self.label_map.name}, or train the classifier stage"
            )
        return None

    def _find(
        self, prepared: Iterable[_Prepared | InputError], batch_size: int
    ) -> Iterator[_Found | InputError]:
        """Runs the network on batches: images are encoded once, then (image, label) pairs."""
        for batch in batches(prepared, batch_size):
            good = [item for item in batch if not isinstance(item, InputError)]
            found = iter(self._find_batch(good, batch_size) if good else [])
            for item in batch:
                yield item if isinstance(item, InputError) else next(found)

    def _find_batch(self, batch: list[_Prepared], batch_size: int) -> list[_Found]:
        squares = np.stack([item.square for item in batch])
        labels = [item.labels for item in batch]
        scores: list[np.ndarray | None] = [None] * len(batch)
        asked = [i for i, given in enumerate(labels) if given is None]
        if asked:
            for i, score in zip(asked, self._network.classify(squares[asked]), strict=True):
                scores[i] = score
                labels[i] = predicted_labels(score, self._allowed, self._threshold)
        pairs = np.array([(i, label) for i, ids in enumerate(labels) for label in ids], np.int32)
        located: list[list[Located]] = [[] for _ in batch]
        if len(pairs):
            encoded = self._network.encode(squares)
            for start in range(0, len(pairs), batch_size):
                index, label = pairs[start : start + batch_size].T
                answers = self._network.locate(encoded, index, label)
                for i, answer in zip(index, answers, strict=True):
                    located[i].append(answer)
        return [
            _Found(item.image, ids, answers, score)
            for item, ids, answers, score in zip(batch, labels, located, scores, strict=True)
        ]

    def _finish(
        self, found: _Found | InputError, refine: Callable[..., np.ndarray | None]
    ) -> Segmentation | InputError:
        if isinstance(found, InputError):
            return found
        height, width = found.image.shape[:2]
        size = self._network.image_size
        probabilities = _stack([x.probability for x in found.located], size)
        # Halved before they are resized, as the authors do: both steps do not commute.
        probabilities = halve_background(probabilities, self._background_factor)
        probabilities = from_square(probabilities, height, width).clip(0, 1)
        foreground = refine(found.image, probabilities) if found.labels else None
        attention = densified = None
        if all(x.attention is not None for x in found.located):
            attention = _stack([x.attention for x in found.located], 1)
            densified = _stack([x.densified for x in found.located], 1)
        return Segmentation(
            image=found.image,
            label_map=merge(probabilities, found.labels, foreground),
            labels=found.labels,
            probabilities=probabilities,
            foreground=foreground,
            attention=attention,
            densified=densified,
            label_probabilities=found.label_probabilities,
        )


def find_saved_model(path: Path) -> Path | None:
    """Returns the SavedModel directory that `path` is, or the newest version in it, or None."""
    if (path / "saved_model.pb").is_file():
        return path
    versions = [p.parent for p in path.glob("*/saved_model.pb") if p.parent.name.isdecimal()]
    return max(versions, key=lambda version: int(version.name), default=None)


def _stack(maps: list[np.ndarray], size: int) -> np.ndarray:
    return np.stack(maps) if maps else np.zeros((0, size, size), np.float32)


def _refine_here(
    crf: CrfParameters | None, image: np.ndarray, probabilities: np.ndarray
) -> np.ndarray | None:
    return None if crf is None else crf_module.refine(image, probabilities, crf)


def _refine_there(
    pool: ProcessPoolExecutor, crf: CrfParameters, image: np.ndarray, probabilities: np.ndarray
) -> np.ndarray:
    return pool.submit(crf_module.refine, image, probabilities, crf).result()
