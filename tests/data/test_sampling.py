"""The order of pairs: uniform, a function of seed and position alone, and subsets drawn whole."""

import concurrent.futures
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tfseg.data.labels import Label, LabelMap
from tfseg.data.records import RecordInfo, Split
from tfseg.data.sampling import PairStream, RehearsedStream
from tfseg.errors import InputError

LABEL_MAP = LabelMap(
    "shapes",
    tuple(Label(i, f"label{i}", "target" if i <= 3 else "source") for i in range(1, 9)),
)


def _split(domain="source", images=40, masks=None, seed=0):
    """An index without files: image i has 0 to 4 labels; the first `masks` have a mask (None: all)."""
    rng = np.random.default_rng(seed)
    ids = LABEL_MAP.ids(domain)
    infos = []
    for i in range(images):
        labels = tuple(sorted(rng.choice(ids, min(i % 5, len(ids)), replace=False).tolist()))
        has_mask = masks is None or i < masks
        infos.append(RecordInfo(0, 100 * i, 84, f"image{i}", labels, has_mask, 8, 8))
    return Split(Path("records"), f"{domain}_train", domain, LABEL_MAP, ("shard",), tuple(infos), {})


def _pairs(stream, start, count):
    return [(pair.index, pair.label) for pair in map(stream.at, range(start, start + count))]


def test_each_epoch_holds_each_pair_once_in_another_order():
    split = _split()
    stream = PairStream(split, seed=3)
    assert len(stream) == len(split.pairs) > 60
    epochs = [_pairs(stream, epoch * len(stream), len(stream)) for epoch in range(4)]
    for epoch in epochs:
        assert Counter(epoch) == Counter(split.pairs)  # No image, label or class weighs more.
    assert len({tuple(epoch) for epoch in epochs}) == 4
    assert split.pairs not in map(tuple, epochs)
    assert all(stream.at(i).use_mask for i in range(len(stream)))


def test_every_place_of_an_epoch_gets_every_pair_alike():
    """The mean over many epochs of a pair's place is the middle."""
    stream = PairStream(_split(images=10), seed=0)
    count, epochs = len(stream), 600
    places = Counter()
    for position in range(count * epochs):
        pair = stream.at(position)
        places[pair.index, pair.label] += position % count
    means = np.array([places[pair] / epochs for pair in stream.split.pairs])
    deviation = np.sqrt((count**2 - 1) / 12 / epochs)  # Of a uniform place's mean.
    assert np.abs(means - (count - 1) / 2).max() < 4.5 * deviation


def test_random_access_equals_reading_in_order():
    in_order = PairStream(_split(), seed=3)
    expected = _pairs(in_order, 0, 3 * len(in_order))
    positions = np.random.default_rng(1).permutation(len(expected))
    jumping = PairStream(_split(), seed=3)
    for position in positions.tolist():
        assert _pairs(jumping, position, 1) == [expected[position]]


def test_any_number_of_readers_may_ask_at_once():
    """A picture's batch and the training stream share one, and stand in different epochs."""
    alone = PairStream(_split(images=15), seed=0)
    positions = np.random.default_rng(1).integers(6 * len(alone), size=6000).tolist()
    expected = [alone.at(position) for position in positions]
    shared = PairStream(_split(images=15), seed=0)
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            assert list(pool.map(shared.at, positions, chunksize=1)) == expected
    finally:
        sys.setswitchinterval(interval)


def test_the_order_depends_on_seed_domain_and_nothing_else():
    count = 60
    reference = _pairs(PairStream(_split(), 3), 0, count)
    np.random.seed(99)
    assert _pairs(PairStream(_split(), 3), 0, count) == reference
    assert _pairs(PairStream(_split(), 3, subset_seed=8), 0, count) == reference
    assert _pairs(PairStream(_split(), 4), 0, count) != reference

    # As many pairs in the other domain: its permutation is another one, and no other stream moves it.
    def ranks(domain):
        stream = PairStream(_split(domain, images=3), 3)
        return [stream.split.pairs.index(pair) for pair in _pairs(stream, 0, 30 * len(stream))]

    assert len(ranks("source")) == len(ranks("target"))
    assert ranks("source") != ranks("target")


@pytest.mark.parametrize("fraction", [0.5, 0.25, 0.1, 0.05, 0.01])
def test_fractions_keep_or_drop_images_whole(fraction):
    split = _split(images=500)
    labelled = [i for i, info in enumerate(split.infos) if info.labels]
    stream = PairStream(split, 0, fraction=fraction, subset_seed=1)
    assert len(stream.images) == round(fraction * len(labelled))
    assert set(stream.images) <= set(labelled)
    expected = Counter(pair for pair in split.pairs if pair[0] in set(stream.images))
    assert Counter(_pairs(stream, 0, len(stream))) == expected
    assert stream.num_masks == len(stream.images)


def test_sizes_of_the_papers_subsets():
    """SPEC 10: of 17,443 images 50, 25, 10, 5 and 1 %."""
    infos = tuple(RecordInfo(0, 0, 0, str(i), (4,), True, 8, 8) for i in range(17443))
    split = Split(Path("records"), "source_train", "source", LABEL_MAP, ("shard",), infos, {})
    sizes = [len(PairStream(split, 0, fraction=f).images) for f in (1, 0.5, 0.25, 0.1, 0.05, 0.01)]
    assert sizes == [17443, 8722, 4361, 1744, 872, 174]


def test_subsets_are_reproducible_and_independent():
    split = _split(images=2000)

    def images(fraction, subset_seed, seed=0):
        return set(PairStream(split, seed, fraction=fraction, subset_seed=subset_seed).images)

    subsets = [images(0.25, seed) for seed in range(6)]
    assert subsets == [images(0.25, seed, seed=7) for seed in range(6)]
    size, labelled = len(subsets[0]), len(images(1.0, 0))
    expected = size**2 / labelled
    # Overlap of two independent subsets is hypergeometric; five standard deviations around its mean.
    spread = 5 * np.sqrt(expected * (1 - size / labelled) ** 2)
    for i, left in enumerate(subsets):
        for right in subsets[i + 1 :]:
            assert abs(len(left & right) - expected) < spread
    # Not a prefix of the file either.
    assert np.mean(sorted(subsets[0])) == pytest.approx(1000, abs=100)


def test_a_subset_never_is_empty():
    assert len(PairStream(_split(images=5), 0, fraction=1e-6).images) == 1


def test_masks_of_the_target_are_hidden_unless_asked_for():
    split = _split("target", masks=25)
    with_labels = {i for i in range(25) if split.infos[i].labels}
    hidden = PairStream(split, 0, masks=0)
    assert hidden.num_masks == 0
    assert not any(hidden.at(i).use_mask for i in range(2 * len(hidden)))

    def masked(count, subset_seed=0):
        stream = PairStream(split, 0, masks=count, subset_seed=subset_seed)
        assert stream.num_masks == count
        shown = {p.index for p in map(stream.at, range(len(stream))) if p.use_mask}
        assert {p.index for p in map(stream.at, range(len(stream))) if not p.use_mask}.isdisjoint(shown)
        return shown

    assert len(masked(4)) == 4 and masked(4) <= with_labels
    assert masked(4) == masked(4) != masked(4, subset_seed=1)
    assert masked(4) < masked(9)  # More masks are more of the same draw.
    assert masked(len(with_labels)) == with_labels
    with pytest.raises(InputError, match=rf"99 masks asked for, but only {len(with_labels)} images of "):
        PairStream(split, 0, masks=99)


def test_source_images_need_masks_where_they_are_used():
    split = _split("source", masks=30)
    missing = sum(1 for info in split.infos[30:] if info.labels)
    with pytest.raises(InputError, match=rf"source_train\.json: {missing} of 32 source images have no mask"):
        PairStream(split, 0)
    assert PairStream(split, 0, masks=0).num_masks == 0


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_fractions_outside_are_refused(fraction):
    with pytest.raises(InputError, match="above 0 and at most 1"):
        PairStream(_split(), 0, fraction=fraction)


def test_no_pairs_at_all_are_refused():
    with pytest.raises(InputError, match=r"source_train\.json: no \(image, label\) pair"):
        PairStream(_split(images=1), 0)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_old_pairs_have_their_share_of_every_stretch(share):
    """Any stretch of n places holds n share of them, give or take one; each stream is read in its order."""
    new, source = (PairStream(_split(domain), 1, masks=0) for domain in ("target", "source"))
    mixed = RehearsedStream(new, [source, source], share)
    pairs = [mixed.at(position) for position in range(200)]
    old = [pair.split.domain == "source" for pair in pairs]
    for start in range(0, 180, 7):
        assert abs(sum(old[start : start + 20]) - 20 * share) <= 1
    assert [pair for pair in pairs if pair.split is new.split] == [new.at(i) for i in range(200 - sum(old))]
    turns = [source.at(i // 2) for i in range(sum(old))]
    assert [pair for pair in pairs if pair.split is source.split] == turns
