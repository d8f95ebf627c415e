"""Pictures for people: masks over photographs, attention as heat, and rows of them with titles.

Everything is an array, uint8 `[H, W, 3]`, until somebody saves it.
"""

import dataclasses
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID
from tfseg.data.voc_colors import palette
from tfseg.inference.postprocessing import from_square
from tfseg.inference.preprocessing import ImageFit

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = (20, 20, 20)
_PAPER = (255, 255, 255)
_POINTS = 8  # Font size of a sheet, 1/72 inch.


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


def stretch(maps: np.ndarray) -> np.ndarray:
    """Stretches each map to 0 to 1, its lowest value to 0; the one way from maps to brightness.

    Args:
        maps: float `[..., h, w]`, of any sign.

    Returns:
        float32 of the same shape; a constant map becomes 0.
    """
    maps = np.asarray(maps, np.float32)
    low = maps.min(axis=(-2, -1), keepdims=True)
    span = maps.max(axis=(-2, -1), keepdims=True) - low
    return (maps - low) / np.where(span > 0, span, 1)


def heat(image: np.ndarray, heatmap: np.ndarray, alpha: float = 0.6, fit: ImageFit = "pad") -> np.ndarray:
    """Lays a map of the network over its image as heat, dark blue (lowest) to red (highest).

    Args:
        image: uint8 `[H, W, 3]`.
        heatmap: float `[h, w]` over the network's square, as `Segmentation.attention[k]`;
            stretched to its lowest and highest value within the image.
        alpha: Share of the heat, 0 to 1.
        fit: How the image became that square, as `Segmentation.image_fit`.

    Returns:
        uint8 `[H, W, 3]`.
    """
    from matplotlib import colormaps

    height, width = image.shape[:2]
    values = from_square(heatmap[None], height, width, "bicubic", fit)[0]
    # Without the rings where bicubic interpolation overshoots.
    values = stretch(values.clip(heatmap.min(), heatmap.max()))
    colors = 255 * colormaps["turbo"](values)[..., :3]
    grey = image.mean(axis=-1, keepdims=True)
    return np.rint((1 - alpha) * grey + alpha * colors).astype(np.uint8)


def grey(values: np.ndarray) -> np.ndarray:
    """Draws values, float `[..., H, W]`, as uint8 `[..., H, W, 3]`: black is 0 and white is 1."""
    return np.repeat(np.rint(255 * np.clip(values, 0, 1)).astype(np.uint8)[..., None], 3, axis=-1)


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


@dataclasses.dataclass(frozen=True)
class Cell:
    """One picture of a `sheet`.

    Attributes:
        picture: uint8 `[H, W, 3]`.
        caption: Shown below it.
        flat: Whether it is enlarged without interpolation, so that the colours of labels stay.
        mark: (x, y) in pixels of `picture` that a ring is drawn around; None for none.
    """

    picture: np.ndarray
    caption: str = ""
    flat: bool = False
    mark: tuple[float, float] | None = None


def sheet(
    rows: Sequence[Sequence[Cell]],
    titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    entries: Sequence[tuple[int, str]] = (),
    *,
    dpi: int = 100,
    width: float = 12.0,
    cell: float = 2.4,
) -> np.ndarray:
    """Arranges pictures in rows and columns with titles, captions and a legend.

    Args:
        rows: Cells; rows may be of different lengths. Each picture fills its cell by its longer side.
        titles: Above the columns.
        row_titles: Left of the rows, upright.
        entries: (label id, text) of the legend, which is left out without any.
        dpi: Pixels an inch.
        width: Largest width of the sheet, inches.
        cell: Largest side of a cell, inches.

    Returns:
        uint8 `[H, W, 3]`, on white.
    """
    gap, line, columns = dpi // 20, dpi // 6, max(map(len, rows))
    left, top = gap + line * bool(row_titles), gap + line * bool(titles)
    side = int(min((width * dpi - left) / columns - gap, cell * dpi))
    fitted = [[fit(one.picture, side, one.flat) for one in row] for row in rows]
    heights = [max(len(picture) for picture in row) for row in fitted]
    below = [gap + (line if any(one.caption for one in row) else 0) for row in rows]
    pixels = np.array([left + columns * (side + gap), top + sum(heights) + sum(below)])
    figure = _white_figure(pixels, dpi)
    centers = [left + column * (side + gap) + side / 2 for column in range(columns)]
    for title, x in zip(titles, centers, strict=False):
        _write(figure, title, x, gap + line / 2, side)
    y = top
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if number < len(row_titles):
            _write(figure, row_titles[number], gap + line / 2, y + height / 2, height, rotation=90)
        for one, picture, center in zip(row, fitted[number], centers, strict=False):
            x0, y0 = round(center - picture.shape[1] / 2), y + (height - len(picture)) // 2
            figure.figimage(picture, x0, pixels[1] - y0 - len(picture), origin="upper")
            _write(figure, one.caption, center, y + height + line / 2, side)
            if one.mark is not None:
                mark = np.multiply(one.mark, picture.shape[1] / one.picture.shape[1])
                _ring(figure, x0 + mark[0], y0 + mark[1], side / 24)
        y += height + below[number]
    return legend(_rendered(figure), entries, round(_POINTS * dpi / 72)) if entries else _rendered(figure)


def fit(picture: np.ndarray, side: int, flat: bool = False) -> np.ndarray:
    """Brings the longer side of a picture, uint8 `[H, W, 3]` or `[H, W]`, to `side` pixels.

    With `flat`, without interpolation: label ids and their colours stay.
    """
    scale = side / max(picture.shape[:2])
    height, width = (max(1, round(length * scale)) for length in picture.shape[:2])
    resampling = Image.Resampling.NEAREST if flat else Image.Resampling.LANCZOS
    return np.array(Image.fromarray(picture).resize((width, height), resampling))


def encode_png(picture: np.ndarray, dpi: int | None = None, description: str = "") -> bytes:
    """Returns a PNG file.

    Args:
        picture: uint8 `[H, W, 3]`.
        dpi: Pixels an inch at which it is to be printed; None leaves that open.
        description: What it shows, kept in the file.
    """
    info = PngInfo()
    if description:
        info.add_text("Description", description)
    encoded = io.BytesIO()
    size = {"dpi": (dpi, dpi)} if dpi else {}
    Image.fromarray(picture).save(encoded, "PNG", optimize=dpi is not None, pnginfo=info, **size)
    return encoded.getvalue()


def _white_figure(pixels: np.ndarray, dpi: int) -> "Figure":
    from matplotlib.figure import Figure

    # Half a pixel more, since the canvas rounds down. Without pyplot nothing global is touched.
    return Figure((pixels + 0.5) / dpi, dpi=dpi, facecolor="white")


def _rendered(figure: "Figure") -> np.ndarray:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.array(canvas.buffer_rgba())[..., :3]


def _write(figure: "Figure", text: str, x: float, y: float, room: float, rotation: int = 0) -> None:
    """Writes a text around a point, in pixels from the top left; `room` is how long it may be."""
    place, color = (x, int(figure.bbox.height) - y) / np.floor(figure.bbox.size), np.divide(_INK, 255)
    style = {"ha": "center", "va": "center", "parse_math": False, "color": color, "fontsize": _POINTS}
    figure.text(*place, _shorten(text, room / figure.dpi), rotation=rotation, **style)


def _ring(figure: "Figure", x: float, y: float, radius: float) -> None:
    """Draws a ring around a point, in pixels from the top left, seen on black and on white."""
    from matplotlib.patches import Circle

    place = (x, int(figure.bbox.height) - y)
    for color, points in (("black", 2.5), ("white", 1.0)):
        figure.add_artist(Circle(place, radius, fill=False, ec=color, lw=points, transform=None))


def _shorten(text: str, inches: float) -> str:
    """Cuts a text that does not fit, at half the font size a character."""
    count = max(4, int(inches * 72 / (0.55 * _POINTS)))
    return text if len(text) <= count else f"{text[: count - 1]}…"


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
