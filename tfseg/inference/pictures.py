"""Pictures for people: masks over photographs, attention as heat, and rows of them with titles.

Everything is an array, uint8 `[H, W, 3]`, until somebody saves it.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID, LabelMap
from tfseg.data.voc_colors import palette
from tfseg.inference.geometry import from_square

_INK = (20, 20, 20)
_PAPER = (255, 255, 255)


def mask_picture(label_map: np.ndarray) -> np.ndarray:
    """Returns a label map, uint8 `[H, W]`, in VOC's colours."""
    return palette()[label_map]


def overlay(image: np.ndarray, label_map: np.ndarray, alpha: float = 0.5) -> np.ndarray:
    """Tints each label's pixels in its VOC colour and draws their contours.

    Args:
        image: uint8 `[H, W, 3]`.
        label_map: uint8 `[H, W]`; background and 255 stay untinted.
        alpha: Share of the tint, 0 to 1.

    Returns:
        uint8 `[H, W, 3]`.
    """
    tinted = (label_map != BACKGROUND_ID) & (label_map != IGNORE_ID)
    colors = palette()[label_map]
    mixed = np.rint((1 - alpha) * image + alpha * colors).astype(np.uint8)
    result = np.where(tinted[..., None], mixed, image)
    inner = _contour(label_map, max(1, round(max(label_map.shape) / 250)))
    result[inner & tinted] = colors[inner & tinted]
    # A white line outside of the coloured one is seen on any photograph.
    outer = _grow(inner & tinted) & ~tinted
    result[outer] = 255
    return result


def heat(image: np.ndarray, heatmap: np.ndarray, alpha: float = 0.6) -> np.ndarray:
    """Lays a map of the network over its image as heat, dark blue (lowest) to red (highest).

    Args:
        image: uint8 `[H, W, 3]`.
        heatmap: float `[h, w]` over the image padded to a square, as `Segmentation.attention[k]`;
            stretched to its lowest and highest value within the image.
        alpha: Share of the heat, 0 to 1.

    Returns:
        uint8 `[H, W, 3]`.
    """
    height, width = image.shape[:2]
    values = from_square(heatmap[None], height, width, "bicubic")[0]
    # Without the rings where bicubic interpolation overshoots.
    values = values.clip(heatmap.min(), heatmap.max())
    values = (values - values.min()) / max(np.ptp(values), np.finfo(np.float32).tiny)
    colors = 255 * matplotlib.colormaps["turbo"](values)[..., :3]
    grey = image.mean(axis=-1, keepdims=True)
    return np.rint((1 - alpha) * grey + alpha * colors).astype(np.uint8)


def legend(
    picture: np.ndarray,
    entries: Sequence[tuple[int, str]],
    font_size: int | None = None,
) -> np.ndarray:
    """Adds a strip below a picture with the colour and name of each label.

    Args:
        picture: uint8 `[H, W, 3]`.
        entries: (label id, text); without any, the strip says so.
        font_size: In pixels; by default fit for the picture's size.

    Returns:
        uint8 `[H + strip, W, 3]`.
    """
    height, width = picture.shape[:2]
    size = font_size or max(12, round(max(height, width) / 28))
    font = ImageFont.load_default(size)
    gap = size // 2
    places, x, y = [], gap, gap
    for label, text in entries or [(BACKGROUND_ID, "no label found")]:
        needed = round(size + gap + font.getlength(text) + 2 * gap)
        if x > gap and x + needed > width:
            x, y = gap, y + size + gap
        places.append((x, y, label, text))
        x += needed
    strip = Image.new("RGB", (width, y + size + gap), _PAPER)
    draw = ImageDraw.Draw(strip)
    for x, y, label, text in places:
        color = tuple(palette()[label].tolist())
        draw.rectangle((x, y, x + size - 1, y + size - 1), fill=color, outline=_INK)
        draw.text((x + size + gap, y + size / 2), text, fill=_INK, font=font, anchor="lm")
    return np.concatenate([picture, np.asarray(strip)])


def legend_entries(label_map: LabelMap, labels: Sequence[int], mask: np.ndarray) -> list[tuple[int, str]]:
    """Returns what `legend` takes: names of labels with their share of the image."""
    entries = []
    for label in labels:
        share = 100 * float((mask == label).mean())
        entries.append((label, f"{label_map.label(label).name} {share:.1f} %"))
    return entries


def grid(
    rows: Sequence[Sequence[np.ndarray | None]],
    titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    cell: int = 240,
) -> np.ndarray:
    """Arranges pictures in rows and columns with titles.

    Args:
        rows: Pictures, uint8 `[H, W, 3]` of any size, each shrunk or enlarged to fit its cell; None
            leaves a cell empty.
        titles: Above the columns.
        row_titles: Left of the rows.
        cell: Side of a cell, pixels.

    Returns:
        uint8 `[H', W', 3]`, on white.
    """
    gap, size = max(4, cell // 40), max(12, cell // 15)
    font = ImageFont.load_default(size)
    left = gap + max((round(font.getlength(t)) + gap for t in row_titles), default=0)
    top = gap + (size + gap if titles else 0)
    columns = max((len(row) for row in rows), default=0)
    fitted = [[None if p is None else _fit(p, cell) for p in row] for row in rows]
    heights = [max((p.shape[0] for p in row if p is not None), default=0) for row in fitted]
    whole = (left + columns * (cell + gap), top + sum(h + gap for h in heights))
    sheet = Image.new("RGB", whole, _PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        place = (left + column * (cell + gap) + cell / 2, gap + size / 2)
        draw.text(place, _shorten(title, font, cell), fill=_INK, font=font, anchor="mm")
    y = top
    for number, (row, height) in enumerate(zip(fitted, heights, strict=True)):
        if number < len(row_titles):
            place = (gap, y + height / 2)
            draw.text(place, row_titles[number], fill=_INK, font=font, anchor="lm")
        for column, picture in enumerate(row):
            if picture is not None:
                x = left + column * (cell + gap) + (cell - picture.shape[1]) // 2
                sheet.paste(Image.fromarray(picture), (x, y + (height - picture.shape[0]) // 2))
        y += height + gap
    return np.array(sheet)


def _fit(picture: np.ndarray, side: int) -> np.ndarray:
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    while len(text) > 1 and font.getlength(text) > width:
        text = text[:-2] + "…"
    return text


def _contour(label_map: np.ndarray, width: int) -> np.ndarray:
    """Pixels within `width` of a pixel of another label, bool `[H, W]`."""
    padded = np.pad(label_map, 1, mode="edge")
    height, columns = label_map.shape
    edge = np.zeros(label_map.shape, bool)
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        edge |= padded[dy : dy + height, dx : dx + columns] != label_map
    for _ in range(width - 1):
        edge = _grow(edge)
    return edge


def _grow(mask: np.ndarray) -> np.ndarray:
    grown = mask.copy()
    grown[1:] |= mask[:-1]
    grown[:-1] |= mask[1:]
    grown[:, 1:] |= mask[:, :-1]
    grown[:, :-1] |= mask[:, 1:]
    return grown
