"""Outlines of the synthetic objects: silhouettes with concavities, holes and thin parts.

A coarse map cannot follow them, which is what the synthetic set is for: a 6x6 or 12x12 attention
map must score clearly below the real boundary.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

Points = np.ndarray
"""Corners of one polygon, float64 [N, 2] (x right, y down)."""

CURVE_POINTS = 48
"""Corners with which a full circle is drawn."""


@dataclass(frozen=True)
class Outline:
    """A silhouette: the union of its parts less its holes.

    Attributes:
        parts: polygons that are filled.
        holes: polygons that are cut out afterwards.
    """

    parts: tuple[Points, ...]
    holes: tuple[Points, ...] = ()

    def transformed(self, matrix: np.ndarray, shift: np.ndarray) -> "Outline":
        """Each point p becomes `matrix @ p + shift` (matrix [2, 2], shift [2])."""
        parts = tuple(part @ matrix.T + shift for part in self.parts)
        return Outline(parts, tuple(hole @ matrix.T + shift for hole in self.holes))

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The lowest and the highest corner of the box around all parts, float64 [2] each."""
        points = np.concatenate(self.parts)
        return points.min(axis=0), points.max(axis=0)

    def with_box(self, centre: np.ndarray, side: float) -> "Outline":
        """Moved and scaled so that its box has the longer side `side` and the middle `centre`."""
        low, high = self.bounds()
        scale = side / (high - low).max()
        return self.transformed(scale * np.eye(2), centre - scale * (low + high) / 2)


def draw(name: str, rng: np.random.Generator) -> Outline:
    """One outline of the family `name`, its proportions varied, about as large as the unit disc."""
    return _FAMILIES[name](rng)


def _circle(x: float, y: float, radius: float) -> Points:
    angles = np.linspace(0, 2 * np.pi, CURVE_POINTS, endpoint=False)
    return np.stack([x + radius * np.cos(angles), y + radius * np.sin(angles)], axis=1)


def _arc(radius: float, start: float, end: float, x: float = 0.0) -> Points:
    angles = np.linspace(start, end, CURVE_POINTS)
    return np.stack([x + radius * np.cos(angles), radius * np.sin(angles)], axis=1)


def _polar(radii: np.ndarray, turn: float = 0.0) -> Points:
    angles = turn + 2 * np.pi * np.arange(len(radii)) / len(radii)
    return np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)


def _polygon(*corners: tuple[float, float]) -> Points:
    return np.array(corners, np.float64)


def _box(left: float, top: float, right: float, bottom: float) -> Points:
    return _polygon((left, top), (right, top), (right, bottom), (left, bottom))


def _star(rng: np.random.Generator) -> Outline:
    inner = rng.uniform(0.36, 0.46)
    return Outline((_polar(np.tile([1.0, inner], 5)),))


def _ring(rng: np.random.Generator) -> Outline:
    return Outline((_circle(0, 0, 1),), (_circle(0, 0, rng.uniform(0.5, 0.62)),))


def _cross(rng: np.random.Generator) -> Outline:
    w = rng.uniform(0.24, 0.32)
    right_arm = [(w, -w), (1, -w), (1, w), (w, w)]
    quarter = np.array([[0, -1], [1, 0]])
    arms = [np.array(right_arm) @ np.linalg.matrix_power(quarter, k).T for k in range(4)]
    return Outline((np.concatenate([arm[1:] for arm in arms]),))


def _crescent(rng: np.random.Generator) -> Outline:
    shift, radius = rng.uniform(0.45, 0.6), rng.uniform(0.78, 0.86)
    outer = np.arccos((1 + shift**2 - radius**2) / (2 * shift))
    inner = np.arctan2(np.sin(outer), np.cos(outer) - shift)
    back = _arc(radius, 2 * np.pi - inner, inner, x=shift)
    return Outline((np.concatenate([_arc(1, outer, 2 * np.pi - outer), back[1:-1]]),))


def _gear(rng: np.random.Generator) -> Outline:
    root = rng.uniform(0.68, 0.76)
    teeth = _polar(np.tile([1.0, 1.0, root, root], 8))
    return Outline((teeth,), (_circle(0, 0, rng.uniform(0.26, 0.36)),))


def _arrow(rng: np.random.Generator) -> Outline:
    w, neck = rng.uniform(0.2, 0.28), rng.uniform(0.05, 0.2)
    head = [(neck, -w), (neck, -0.75), (1, 0), (neck, 0.75), (neck, w)]
    return Outline((_polygon(*head, (-1, w), (-1, -w)),))


def _boomerang(rng: np.random.Generator) -> Outline:
    w = rng.uniform(0.5, 0.64)
    return Outline((_polygon((-1, -1), (w - 1, -1), (w - 1, 1 - w), (1, 1 - w), (1, 1), (-1, 1)),))


def _heart(rng: np.random.Generator) -> Outline:
    t = np.linspace(0, 2 * np.pi, CURVE_POINTS, endpoint=False)
    dip = rng.uniform(0.9, 1.3)
    x = 16 * np.sin(t) ** 3
    y = 13 * np.cos(t) - 5 * dip * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return Outline((np.stack([x, -y], axis=1) / 16,))


def _bolt(rng: np.random.Generator) -> Outline:
    k = rng.uniform(0.1, 0.25)
    upper = [(0.2, -1), (-0.6, 0.1), (-k, 0.1)]
    lower = [(-0.25, 1), (0.6, -0.25), (k, -0.25), (0.55, -1)]
    return Outline((_polygon(*upper, *lower),))


def _horseshoe(rng: np.random.Generator) -> Outline:
    gap, inner = rng.uniform(0.5, 0.8), rng.uniform(0.5, 0.6)
    outside = _arc(1, gap, 2 * np.pi - gap)
    return Outline((np.concatenate([outside, _arc(inner, 2 * np.pi - gap, gap)]),))


def _flower(rng: np.random.Generator) -> Outline:
    depth = rng.uniform(0.26, 0.36)
    angles = 2 * np.pi * np.arange(2 * CURVE_POINTS) / (2 * CURVE_POINTS)
    return Outline((_polar(1 - depth + depth * np.cos(6 * angles)),))


def _comb(rng: np.random.Generator) -> Outline:
    back = rng.uniform(-0.55, -0.4)
    w = 2 / 7
    teeth = [_box(-1 + 3 * k * w, -1, -1 + (3 * k + 1) * w, 1) for k in range(3)]
    return Outline((_box(-1, -1, 1, back), *teeth))


def _nut(rng: np.random.Generator) -> Outline:
    return Outline((_polar(np.ones(6)),), (_circle(0, 0, rng.uniform(0.46, 0.58)),))


def _tree(rng: np.random.Generator) -> Outline:
    w = rng.uniform(0.12, 0.18)
    crowns = [
        _polygon((0, top), (half, top + 0.75), (-half, top + 0.75))
        for top, half in ((-1, 0.45), (-0.55, 0.62), (-0.1, 0.8))
    ]
    return Outline((*crowns, _box(-w, 0.5, w, 1)))


def _fish(rng: np.random.Generator) -> Outline:
    body = _circle(0.25, 0, 1) * [0.72, rng.uniform(0.4, 0.5)]
    tail = _polygon((-0.35, 0), (-1, -0.55), (-0.8, 0), (-1, 0.55))
    return Outline((body, tail))


def _bowtie(rng: np.random.Generator) -> Outline:
    w = rng.uniform(0.1, 0.18)
    return Outline((_polygon((-1, -0.7), (0, -w), (1, -0.7), (1, 0.7), (0, w), (-1, 0.7)),))


def _crown(rng: np.random.Generator) -> Outline:
    dip = rng.uniform(0.0, 0.15)
    spikes = [(-1, -0.7), (-0.5, dip), (0, -0.9), (0.5, dip), (1, -0.7)]
    return Outline((_polygon(*spikes, (0.8, 0.7), (-0.8, 0.7)),))


def _clover(rng: np.random.Generator) -> Outline:
    radius = rng.uniform(0.4, 0.46)
    leaves = [_circle(0, -0.55, radius), _circle(-0.5, 0.1, radius), _circle(0.5, 0.1, radius)]
    return Outline((*leaves, _polygon((-0.1, -0.3), (0.1, -0.3), (0.22, 1), (-0.05, 1))))


def _dumbbell(rng: np.random.Generator) -> Outline:
    w = rng.uniform(0.14, 0.2)
    return Outline((_circle(-0.62, 0, 0.42), _circle(0.62, 0, 0.42), _box(-0.6, -w, 0.6, w)))


def _key(rng: np.random.Generator) -> Outline:
    w = rng.uniform(0.12, 0.17)
    bits = [_box(0.5, 0, 0.66, 0.42), _box(0.84, 0, 1, 0.42)]
    bow, hole = _circle(-0.52, 0, 0.5), _circle(-0.52, 0, rng.uniform(0.2, 0.26))
    return Outline((bow, _box(-0.1, -w, 1, w), *bits), (hole,))


_FAMILIES: dict[str, Callable[[np.random.Generator], Outline]] = {
    "star": _star,
    "ring": _ring,
    "cross": _cross,
    "crescent": _crescent,
    "gear": _gear,
    "arrow": _arrow,
    "boomerang": _boomerang,
    "heart": _heart,
    "bolt": _bolt,
    "horseshoe": _horseshoe,
    "flower": _flower,
    "comb": _comb,
    "nut": _nut,
    "tree": _tree,
    "fish": _fish,
    "bowtie": _bowtie,
    "crown": _crown,
    "clover": _clover,
    "dumbbell": _dumbbell,
    "key": _key,
}
