"""Scenes of the synthetic set: textured objects that overlap, on a cluttered background.

A category is an outline, a texture and a range of hues. Both domains have the same textures and
contrasts, so that what a decoder learns about boundaries in one can hold in the other. What makes
the task easier or harder stands in the constants below; lengths are shares of the nominal side.
"""

import colorsys
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from . import synthetic_shapes
from .synthetic_shapes import Outline

# Objects.
OBJECT_COUNTS = {1: 0.35, 2: 0.4, 3: 0.25}
"""Share of the images with so many objects."""
OBJECT_SIDE = (0.4, 0.65)
"""Longer side of an object's box."""
OBJECT_ASPECT = (0.8, 1.0)
"""An object is squeezed along one axis by this."""
OBJECT_SATURATION = (0.6, 0.9)
OBJECT_VALUE = (0.65, 0.95)
OBJECT_SHADING = 0.15
"""Light falls from one side: brightness changes by up to this share from an object's middle to its edge."""
HUE_SPREAD = 0.018
"""Half of the range of hues of a category; neighbouring categories are 0.05 apart."""
MIN_VISIBLE = 0.55
"""An object of which others hide more than the rest of this is placed anew."""
PLACEMENT_TRIES = 12

# Textures.
TEXTURE_PERIOD = (0.06, 0.095)
TEXTURE_SHARPNESS = 3.0
"""Steepness of the step between a texture's two colours."""
DARK_ACCENT = 0.4
"""Brightness of the second colour where it is darker, as a share of the first's."""
LIGHT_ACCENT = 0.35
"""Saturation of the second colour where it is lighter, as a share of the first's."""

# Backgrounds.
BACKGROUND_SATURATION = (0.0, 0.3)
BACKGROUND_VALUE = (0.25, 0.8)
BACKGROUND_NOISE = ((3, 34.0), (9, 18.0))
"""Low-frequency colour noise: (cells a side, amplitude 0..255) of each octave."""
PATCHES = (2, 5)
"""Large angular patches, fewest and most."""
LINES = (5, 12)
SPECKS = (20, 50)
SPECK_SIDE = (0.01, 0.045)

# Camera.
PIXEL_NOISE = 4.0
"""Standard deviation, 0..255."""
SIDE_RANGE = (88 / 96, 112 / 96)
"""Height and width of an image, each drawn on its own."""

# Crowds: many small objects of one category, given as one region.
CROWD_COUNT = (7, 12)
CROWD_SIDE = (0.1, 0.14)
CROWD_SPREAD = 0.22
CROWD_MARGIN = 3
"""The region reaches so many pixels beyond the objects."""

SUPERSAMPLING = 4
TEXTURES = ("stripes", "checker", "dots", "waves", "grid", "blotches")

SOURCE = ["star", "ring", "cross", "crescent", "gear", "arrow"]
SOURCE += ["boomerang", "heart", "bolt", "horseshoe", "flower", "comb"]
TARGET = ["nut", "tree", "fish", "bowtie", "crown", "clover", "dumbbell", "key"]


@dataclass(frozen=True)
class Category:
    """What all objects of a category share.

    Attributes:
        name: of the category and of its family of outlines.
        texture: one of `TEXTURES`.
        hue: middle of its range of hues, 0..1.
        dark_accent: whether the texture's second colour is darker (else paler) than the first.
    """

    name: str
    texture: str
    hue: float
    dark_accent: bool


def _categories() -> dict[str, Category]:
    # Round the circle of hues the domains alternate, and neighbours differ in their textures.
    sources, targets = iter(SOURCE), iter(TARGET)
    names = [next(sources if turn == "S" else targets) for turn in "STSTS" * 4]
    return {
        name: Category(name, TEXTURES[slot % 6], slot / len(names), slot // 2 % 2 == 0)
        for slot, name in enumerate(names)
    }


CATEGORIES = _categories()


@dataclass(frozen=True)
class SceneObject:
    """One annotated object or crowd region.

    Attributes:
        category: its name.
        mask: bool [H, W], the pixels of it that are seen.
        polygons: the outline as COCO has it, where polygons can tell it: no holes, no part hidden.
            Each is float64 [N, 2] (x, y in pixels).
        is_crowd: whether it is a region of many objects.
    """

    category: str
    mask: np.ndarray
    polygons: tuple[np.ndarray, ...] | None
    is_crowd: bool = False


@dataclass(frozen=True)
class Scene:
    """An image and what is in it.

    Attributes:
        image: uint8 [H, W, 3], RGB.
        objects: from the hindmost to the foremost.
    """

    image: np.ndarray
    objects: tuple[SceneObject, ...]


def draw_scene(rng: np.random.Generator, side: int, names: list[str], crowd_of: str | None = None) -> Scene:
    """Draws one scene.

    Args:
        rng: its draws alone shape the scene.
        side: nominal side of the image in pixels.
        names: categories of the objects from the hindmost to the foremost; may be empty. One that
            finds no place where enough is seen of all is left out.
        crowd_of: category of a crowd behind the objects, or None.
    """
    height, width = (round(side * rng.uniform(*SIDE_RANGE)) for _ in range(2))
    canvas = _background(rng, height, width, side)
    crowd = None
    if crowd_of:
        crowd = _paint_crowd(rng, canvas, CATEGORIES[crowd_of], side)
    placed = _place(rng, names, height, width, side)
    for name, _, coverage in placed:
        _paint(rng, canvas, CATEGORIES[name], coverage, side)
    canvas += rng.normal(0, PIXEL_NOISE, (height, width, 1)) + rng.normal(0, 1, canvas.shape)
    image = np.clip(np.rint(canvas), 0, 255).astype(np.uint8)
    return Scene(image, _annotate(placed, crowd, crowd_of))


def choose_names(rng: np.random.Generator, names: list[str]) -> list[str]:
    """Draws the categories of one scene: their number, then each on its own."""
    count = rng.choice(list(OBJECT_COUNTS), p=list(OBJECT_COUNTS.values()))
    return [names[k] for k in rng.integers(len(names), size=count)]


_Placed = tuple[str, Outline, np.ndarray]


def _place(rng: np.random.Generator, names: list[str], height: int, width: int, side: int) -> list[_Placed]:
    placed: list[_Placed] = []
    for name in names:
        for _ in range(PLACEMENT_TRIES):
            size = side * rng.uniform(*OBJECT_SIDE)
            outline = _pose(rng, name, size, (height, width))
            candidate = [*placed, (name, outline, _coverage(outline, height, width))]
            if _all_visible(candidate):
                placed = candidate
                break
    return placed


def _pose(rng: np.random.Generator, name: str, size: float, within: tuple[int, int]) -> Outline:
    outline = synthetic_shapes.draw(name, rng)
    angle = rng.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    squeeze = np.diag([1.0, rng.uniform(*OBJECT_ASPECT)])
    outline = outline.transformed(turn @ squeeze, np.zeros(2)).with_box(np.zeros(2), size)
    low, high = outline.bounds()
    height, width = within
    centre = rng.uniform(1 - low, np.array([width - 1, height - 1]) - high)
    return outline.transformed(np.eye(2), centre)


def _coverage(outline: Outline, height: int, width: int) -> np.ndarray:
    # The share of each pixel that the outline covers, float32 [H, W].
    fine = Image.new("L", (width * SUPERSAMPLING, height * SUPERSAMPLING))
    pen = ImageDraw.Draw(fine)
    for polygons, value in ((outline.parts, 255), (outline.holes, 0)):
        for points in polygons:
            # ImageDraw counts from pixel centres, outlines from the image's corner.
            pen.polygon((points * SUPERSAMPLING - 0.5).ravel().tolist(), fill=value)
    return np.asarray(fine.reduce(SUPERSAMPLING), np.float32) / 255


def _visible(placed: list[_Placed]) -> list[np.ndarray]:
    masks, hidden = [], np.zeros(placed[0][2].shape, bool)
    for _, _, coverage in reversed(placed):
        masks.append((coverage >= 0.5) & ~hidden)
        hidden |= coverage >= 0.5
    return masks[::-1]


def _all_visible(placed: list[_Placed]) -> bool:
    shares = (
        mask.sum() / (coverage >= 0.5).sum()
        for mask, (_, _, coverage) in zip(_visible(placed), placed, strict=True)
    )
    return min(shares) >= MIN_VISIBLE


def _annotate(
    placed: list[_Placed], crowd: np.ndarray | None, crowd_of: str | None
) -> tuple[SceneObject, ...]:
    masks = _visible(placed) if placed else []
    objects = []
    for (name, outline, coverage), mask in zip(placed, masks, strict=True):
        whole = not outline.holes and mask.sum() == (coverage >= 0.5).sum()
        objects.append(SceneObject(name, mask, outline.parts if whole else None))
    if crowd is not None:
        seen = crowd & ~np.logical_or.reduce([np.zeros_like(crowd), *masks])
        if seen.any():
            objects.insert(0, SceneObject(crowd_of, seen, None, is_crowd=True))
    return tuple(objects)


def _paint(
    rng: np.random.Generator,
    canvas: np.ndarray,
    category: Category,
    coverage: np.ndarray,
    side: int,
) -> None:
    hue = (category.hue + rng.uniform(-HUE_SPREAD, HUE_SPREAD)) % 1
    saturation, value = rng.uniform(*OBJECT_SATURATION), rng.uniform(*OBJECT_VALUE)
    first = np.array(colorsys.hsv_to_rgb(hue, saturation, value))
    if category.dark_accent:
        second = np.array(colorsys.hsv_to_rgb(hue, saturation, value * DARK_ACCENT))
    else:
        second = np.array(colorsys.hsv_to_rgb(hue, saturation * LIGHT_ACCENT, 0.5 + value / 2))
    window = _window(coverage)
    y, x = np.mgrid[window].astype(np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    u = (x - x.mean()) * np.cos(angle) + (y - y.mean()) * np.sin(angle)
    v = (y - y.mean()) * np.cos(angle) - (x - x.mean()) * np.sin(angle)
    share = _texture(category.texture, rng, u, v, side * rng.uniform(*TEXTURE_PERIOD))[..., None]
    light = 1 + rng.uniform(-OBJECT_SHADING, OBJECT_SHADING) * 4 * u[..., None] / side
    color = 255 * light * (share * first + (1 - share) * second)
    canvas[window] += coverage[window][..., None] * (color - canvas[window])


def _window(coverage: np.ndarray) -> tuple[slice, slice]:
    # The box round what is covered.
    rows, columns = (np.flatnonzero(coverage.any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return slice(0, 0), slice(0, 0)
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _texture(name: str, rng: np.random.Generator, u: np.ndarray, v: np.ndarray, period: float) -> np.ndarray:
    # The first colour's share, 0..1; u, v are coordinates in pixels along the texture's axes.
    a, b = 2 * np.pi * u / period + rng.uniform(0, 7), 2 * np.pi * v / period + rng.uniform(0, 7)
    match name:
        case "stripes":
            wave = np.sin(a)
        case "checker":
            wave = 1.6 * np.sin(a / 1.5) * np.sin(b / 1.5)
        case "dots":
            wave = 0.4 - np.cos(a / 1.2) - np.cos(b / 1.2)
        case "waves":
            wave = np.sin(a + 1.8 * np.sin(b / 2.2))
        case "grid":
            wave = 0.55 - np.maximum(np.cos(a / 1.3), np.cos(b / 1.3))
        case _:
            turns = rng.uniform(0, 2 * np.pi, 5)
            phases = rng.uniform(0, 2 * np.pi, 5)
            wave = sum(
                np.sin((a * np.cos(t) + b * np.sin(t)) / 1.6 + p) for t, p in zip(turns, phases, strict=True)
            )
    return 0.5 + 0.5 * np.tanh(TEXTURE_SHARPNESS * wave)


def _paint_crowd(rng: np.random.Generator, canvas: np.ndarray, category: Category, side: int) -> np.ndarray:
    height, width = canvas.shape[:2]
    middle = np.array([width, height]) * rng.uniform(0.3, 0.7, 2)
    region = Image.new("L", (width, height))
    for _ in range(rng.integers(*CROWD_COUNT, endpoint=True)):
        size = side * rng.uniform(*CROWD_SIDE)
        outline = _pose(rng, category.name, size, (height, width))
        centre = middle + rng.uniform(-CROWD_SPREAD, CROWD_SPREAD, 2) * side
        outline = outline.with_box(centre, size)
        _paint(rng, canvas, category, _coverage(outline, height, width), side)
        low, high = outline.bounds()
        box = [*(low - CROWD_MARGIN), *(high + CROWD_MARGIN)]
        ImageDraw.Draw(region).ellipse(box, fill=255)
    return np.asarray(region) > 0


def _background(rng: np.random.Generator, height: int, width: int, side: int) -> np.ndarray:
    # Float32 [H, W, 3], 0..255: muted colours, low-frequency noise, patches, lines, specks.
    picture = Image.new("RGB", (2 * width, 2 * height), _muted(rng))
    pen = ImageDraw.Draw(picture)
    scale = np.array([2 * width, 2 * height])
    for _ in range(rng.integers(*PATCHES, endpoint=True)):
        corners = rng.uniform(-0.2, 1.2, 2) + rng.normal(0, 0.35, (rng.integers(3, 6), 2))
        pen.polygon((corners * scale).ravel().tolist(), fill=_muted(rng))
    for _ in range(rng.integers(*LINES, endpoint=True)):
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * scale
        pen.line(ends.ravel().tolist(), fill=_muted(rng), width=int(rng.integers(2, 4)))
    for _ in range(rng.integers(*SPECKS, endpoint=True)):
        corner, extent = rng.uniform(0, 1, 2) * scale, 2 * side * rng.uniform(*SPECK_SIDE, 2)
        pen.ellipse([*corner, *(corner + extent)], fill=_muted(rng))
    canvas = np.asarray(picture.reduce(2), np.float32)
    for cells, amplitude in BACKGROUND_NOISE:
        canvas = canvas + amplitude * _smooth_noise(rng, cells, height, width)
    return canvas


def _smooth_noise(rng: np.random.Generator, cells: int, height: int, width: int) -> np.ndarray:
    brightness = rng.normal(0, 0.8, (cells, cells, 1)) + rng.normal(0, 0.25, (cells, cells, 3))
    channels = [
        Image.fromarray(brightness[..., c].astype(np.float32)).resize(
            (width, height), Image.Resampling.BICUBIC
        )
        for c in range(3)
    ]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)


def _muted(rng: np.random.Generator) -> tuple[int, int, int]:
    hue, saturation = rng.uniform(), rng.uniform(*BACKGROUND_SATURATION)
    rgb = colorsys.hsv_to_rgb(hue, saturation, rng.uniform(*BACKGROUND_VALUE))
    return tuple(round(255 * channel) for channel in rgb)
