"""Pictures in rows and columns at print resolution, with titles, captions and a legend."""

import dataclasses
import io
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from tfseg.data.voc_colors import palette

DPI = 300
"""Pixels an inch; what journals ask of photographs."""
TEXT_WIDTH = 6.9
"""Width of a page's text in inches, as in the two columns of a conference paper."""
_INK, _PAPER, _FRAME = (20, 20, 20), (255, 255, 255), (150, 150, 150)
_GAP, _MARGIN = 14, 12


@dataclasses.dataclass(frozen=True)
class Cell:
    """One picture.

    Attributes:
        draw: Returns it, uint8 `[H, W, 3]`, its longer side being the given number of pixels.
        caption: Below it.
    """

    draw: Callable[[int], np.ndarray]
    caption: str = ""


def sheet(
    rows: Sequence[Sequence[Cell]],
    titles: Sequence[str] = (),
    row_titles: Sequence[str] = (),
    legend: Sequence[tuple[int, str]] = (),
    points: float = 8,
    max_cell: float = 1.7,
) -> np.ndarray:
    """Draws a figure at most `TEXT_WIDTH` wide.

    Args:
        rows: Cells; rows may be of different lengths.
        titles: Above the columns.
        row_titles: Left of the rows, upright.
        legend: (label id, name), shown below with the labels' VOC colours.
        points: Font size, 1/72 inch.
        max_cell: Longest side of a picture, inches.

    Returns:
        uint8 `[H, W, 3]`, `DPI` pixels an inch.
    """
    font = ImageFont.load_default(round(points * DPI / 72))
    line = round(1.35 * font.size)
    columns = max(len(row) for row in rows)
    left = line + _GAP if row_titles else 0
    room = round(TEXT_WIDTH * DPI) - 2 * _MARGIN - left - (columns - 1) * _GAP
    side = min(room // columns, round(max_cell * DPI))
    width = left + columns * side + (columns - 1) * _GAP
    drawn = [[cell.draw(side) for cell in row] for row in rows]
    heights = [max(picture.shape[0] for picture in row) for row in drawn]
    captions = [line if any(cell.caption for cell in row) else 0 for row in rows]
    legend_places, legend_height = _place_legend(legend, font, line, width)
    top = line if titles else 0
    height = top + sum(heights) + sum(captions) + (len(rows) - 1) * _GAP + legend_height
    canvas = Image.new("RGB", (width, height), _PAPER)
    draw = ImageDraw.Draw(canvas)

    def centre(column: int) -> float:
        return left + column * (side + _GAP) + side / 2

    for column, title in enumerate(titles):
        place = (centre(column), line / 2)
        draw.text(place, _shorten(title, font, side + _GAP), fill=_INK, font=font, anchor="mm")
    y = top
    for index, (row, pictures) in enumerate(zip(rows, drawn, strict=True)):
        if index < len(row_titles):
            upright = _upright(row_titles[index], font, line, heights[index])
            canvas.paste(upright, (0, y + (heights[index] - upright.height) // 2))
        for column, (cell, picture) in enumerate(zip(row, pictures, strict=True)):
            x = round(centre(column) - picture.shape[1] / 2)
            upper = y + (heights[index] - picture.shape[0]) // 2
            canvas.paste(Image.fromarray(picture), (x, upper))
            place = (centre(column), y + heights[index] + line / 2)
            draw.text(place, _shorten(cell.caption, font, side), fill=_INK, font=font, anchor="mm")
        y += heights[index] + captions[index] + _GAP
    _draw_legend(draw, legend_places, font, line, y - _GAP)
    return np.pad(np.array(canvas), ((_MARGIN, _MARGIN), (_MARGIN, _MARGIN), (0, 0)), constant_values=255)


def encode(picture: np.ndarray) -> bytes:
    """Returns a PNG file that says how large it is to be printed."""
    encoded = io.BytesIO()
    Image.fromarray(picture).save(encoded, "PNG", dpi=(DPI, DPI), optimize=True)
    return encoded.getvalue()


def _place_legend(
    entries: Sequence[tuple[int, str]], font: ImageFont.FreeTypeFont, line: int, width: int
) -> tuple[list[tuple[int, int, int, str]], int]:
    """Returns (x, y, label, name) of each entry, y counted from the legend's top, and its height."""
    places, x, y = [], 0, _GAP
    for label, name in entries:
        needed = round(line + font.getlength(name) + line)
        if x and x + needed - line > width:
            x, y = 0, y + line
        places.append((x, y, label, name))
        x += needed
    return places, y + line if entries else 0


def _draw_legend(
    draw: ImageDraw.ImageDraw,
    places: list[tuple[int, int, int, str]],
    font: ImageFont.FreeTypeFont,
    line: int,
    top: int,
) -> None:
    box = round(0.7 * line)
    for x, y, label, name in places:
        upper = top + y + (line - box) // 2
        color = tuple(palette()[label].tolist())
        draw.rectangle((x, upper, x + box - 1, upper + box - 1), fill=color, outline=_FRAME)
        draw.text((x + line, top + y + line / 2), name, fill=_INK, font=font, anchor="lm")


def _upright(text: str, font: ImageFont.FreeTypeFont, line: int, length: int) -> Image.Image:
    strip = Image.new("RGB", (length, line), _PAPER)
    place = (length / 2, line / 2)
    text = _shorten(text, font, length)
    ImageDraw.Draw(strip).text(place, text, fill=_INK, font=font, anchor="mm")
    return strip.transpose(Image.Transpose.ROTATE_90)


def _shorten(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while len(text) > 1 and font.getlength(text + "...") > width:
        text = text[:-1]
    return text + "..."
