"""What a `Segmenter` is asked, and what it answers."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from tfseg.inference.images import ImageLike

Labels = Sequence[int | str] | int | str


@dataclasses.dataclass(frozen=True)
class Segmentation:
    """What was found in one image of H x W pixels.

    Attributes:
        image: uint8 `[H, W, 3]`, the image as it was read.
        label_map: uint8 `[H, W]`, label ids, 0 where background.
        labels: The K labels that were looked for.
        probabilities: float32 `[K, H, W]`, foreground probability of each label after the
            background was halved, before any CRF.
        foreground: bool `[K, H, W]`, each label's foreground by the CRF; None without one.
        attention: float32 `[K, h, w]`, a of equation (3) over the padded square; None from a
            SavedModel, which does not tell.
        densified: float32 `[K, h, w]`, s of equation (7), as `attention`.
        label_probabilities: float32 `[L]`, the classifier's; None where labels were given.
    """

    image: np.ndarray
    label_map: np.ndarray
    labels: tuple[int, ...]
    probabilities: np.ndarray
    foreground: np.ndarray | None
    attention: np.ndarray | None
    densified: np.ndarray | None
    label_probabilities: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Query:
    """An image of a stream with labels of its own.

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
