"""Which (image, label) pair stands at which place of the training stream (SPEC 4.4, 4.6).

The stream of a domain is a function of a seed and a position, and of nothing else: pair `p` of epoch
`e` is entry `p` of a permutation drawn from `(seed, domain, e)`. A run that resumes, and a run on more
devices, therefore see just the pairs that an undisturbed run on one device sees.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

from tfseg.data.records import Split
from tfseg.errors import InputError

_DOMAIN_TAG = {"source": 1, "target": 2}


@dataclasses.dataclass(frozen=True)
class Pair:
    """One training example.

    Attributes:
        index: Number of the record in its split.
        label: Label id that the example asks for.
        use_mask: Whether its mask may reach the loss.
        split: Where its record lies.
    """

    index: int
    label: int
    use_mask: bool
    split: Split = dataclasses.field(repr=False, compare=False)


class PairStream:
    """The endless, shuffled stream of pairs of one domain; uniform over pairs, not over images.

    Args:
        split: Records of the domain.
        seed: Seed of the shuffling.
        fraction: Share of the images to use, in (0, 1]; a smaller set drops images whole.
        subset_seed: Seed that draws those images, apart from the shuffling.
        masks: How many images may show their mask to the loss; None means all of them, `available` those that
            have one. The official protocol is all of the source and none of the target.

    Raises:
        InputError: If no pair is left, or there are fewer masks than asked for.
    """

    def __init__(
        self,
        split: Split,
        seed: int,
        *,
        fraction: float = 1.0,
        subset_seed: int = 0,
        masks: int | Literal["available"] | None = None,
    ) -> None:
        self.split = split
        self._seed = (seed, _DOMAIN_TAG[split.domain])
        self.images = _subset(split, fraction, subset_seed)
        self._masked = _masked_images(split, self.images, subset_seed, masks)
        pairs = [(i, label) for i in self.images for label in split.infos[i].labels]
        if not pairs:
            raise InputError(
                f"{split.data_dir}/{split.name}.json: no (image, label) pair among {len(self.images)} "
                "chosen images; build it with images that have labels, or raise --source_fraction"
            )
        self._pairs = np.array(pairs, dtype=np.int64)
        # Epoch and order are one value, so that readers in different epochs cannot mix them up.
        self._epoch_order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        """Number of different pairs."""
        return len(self._pairs)

    @property
    def num_masks(self) -> int:
        """Number of images whose mask may reach the loss."""
        return len(self._masked)

    def at(self, position: int) -> Pair:
        """Returns the pair at a position, 0 and up without end; any number of threads may ask at once."""
        epoch, place = divmod(int(position), len(self._pairs))
        drawn, order = self._epoch_order
        if epoch != drawn:
            order = np.random.default_rng((*self._seed, epoch)).permutation(len(self._pairs))
            self._epoch_order = epoch, order
        index, label = self._pairs[order[place]]
        return Pair(int(index), int(label), int(index) in self._masked, self.split)


class RehearsedStream:
    """A stream of new pairs with a share of old ones, spread evenly.

    Place `p` holds an old pair where `floor((p + 1) share) > floor(p share)`; the old streams take turns.

    Args:
        new: Pairs of the new categories' records.
        old: Streams of the records that the network was trained on, one or more.
        share: Of the old pairs, in (0, 1).
    """

    def __init__(self, new: PairStream, old: Sequence[PairStream], share: float) -> None:
        if not 0 < share < 1:
            raise InputError(f"share of old pairs {share}: must be above 0 and below 1")
        self.split, self.images, self.num_masks = new.split, new.images, 0
        self._new, self._old, self._share = new, tuple(old), share

    def __len__(self) -> int:
        """Number of different pairs."""
        return sum(len(stream) for stream in (self._new, *self._old))

    def at(self, position: int) -> Pair:
        """Returns the pair at a position, 0 and up without end; any number of threads may ask at once."""
        position = int(position)
        rehearsed = math.floor(position * self._share)
        if math.floor((position + 1) * self._share) == rehearsed:
            return self._new.at(position - rehearsed)
        turn, number = divmod(rehearsed, len(self._old))
        return self._old[number].at(turn)


def _subset(split: Split, fraction: float, seed: int) -> list[int]:
    if not 0 < fraction <= 1:
        raise InputError(f"fraction {fraction}: must be above 0 and at most 1")
    labelled = [i for i, info in enumerate(split.infos) if info.labels]
    if fraction == 1:
        return labelled
    size = max(1, round(fraction * len(labelled)))
    chosen = np.random.default_rng((seed, _DOMAIN_TAG[split.domain])).permutation(len(labelled))[:size]
    return sorted(labelled[i] for i in chosen)


def _masked_images(
    split: Split, images: list[int], seed: int, count: int | Literal["available"] | None
) -> frozenset[int]:
    candidates = [i for i in images if split.infos[i].has_mask]
    if count == "available":
        return frozenset(candidates)
    if count is None:
        if len(candidates) < len(images):
            raise InputError(
                f"{split.data_dir}/{split.name}.json: {len(images) - len(candidates)} of {len(images)} "
                "source images have no mask; the source domain needs one for every image"
            )
        return frozenset(candidates)
    if count > len(candidates):
        raise InputError(
            f"{count} masks asked for, but only {len(candidates)} images of "
            f"{split.data_dir}/{split.name}.json have one"
        )
    order = np.random.default_rng((seed, _DOMAIN_TAG[split.domain], 1)).permutation(len(candidates))
    return frozenset(candidates[i] for i in order[:count])
