"""Pieces of one self-contained HTML page: no script, no address of another file."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from PIL import Image

__all__ = ["bar", "details", "escape", "figure", "image", "mark", "number", "page", "table", "tiles"]

_STYLE = """
:root { --ink: #1c2230; --muted: #5b6575; --line: #e2e6ec; --paper: #fff; --wash: #f5f7fa;
  --bar: #cfe0f7; --accent: #1d5fbf; }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 62rem; padding: 1.25rem 1rem 4rem; color: var(--ink);
  background: var(--paper); font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: .5rem 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.75rem 0 .5rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.5rem 0 .4rem; }
h3 small, .muted { color: var(--muted); font-weight: normal; }
p { margin: .4rem 0; max-width: 46rem; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(14rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; }
.card { background: var(--wash); border-radius: .6rem; padding: .9rem 1rem; }
.card b { display: block; font-size: 2.1rem; line-height: 1.15; font-weight: 650; }
.card.first b { color: var(--accent); }
.tiles { display: grid; gap: .4rem; grid-template-columns: repeat(var(--columns, 6), 1fr); }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; border-radius: .25rem; }
.tiles img { aspect-ratio: 1; object-fit: contain; background: var(--wash); }
figcaption { font-size: .78rem; line-height: 1.3; color: var(--muted); padding-top: .15rem; }
.panels { display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)); }
.panels img { width: 100%; max-width: 32rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .92rem; }
th, td { padding: .3rem .7rem; text-align: left; border-bottom: 1px solid var(--line);
  white-space: nowrap; }
th { font-weight: 600; color: var(--muted); white-space: normal; vertical-align: bottom;
  max-width: 10rem; }
td.number, th.number { text-align: right; }
td.bar { width: 10rem; min-width: 5.5rem;
  background: linear-gradient(to right, var(--bar) var(--part), transparent var(--part)) no-repeat; }
tr.total td { font-weight: 650; border-top: 2px solid var(--line); }
details { margin: .35rem 0; font-size: .9rem; }
summary { cursor: pointer; color: var(--accent); }
code, pre { font: .82rem/1.45 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre { background: var(--wash); border-radius: .4rem; padding: .6rem .8rem; margin: .4rem 0;
  white-space: pre-wrap; overflow-wrap: anywhere; }
.good, .bad { font-weight: 650; }
.good { color: #14713a; }
.bad { color: #b3261e; }
@media (max-width: 40rem) {
  .tiles { grid-template-columns: repeat(3, 1fr); }
  th, td { padding: .3rem .45rem; }
}
"""


def page(title: str, body: Sequence[str]) -> bytes:
    """Returns a whole page, UTF-8.

    Args:
        title: Plain text.
        body: Pieces of HTML.
    """
    lines = [
        "<!DOCTYPE html>",
        '<html lang="en">',
        '<head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style></head>",
        "<body>",
        *body,
        "</body></html>\n",
    ]
    return "\n".join(lines).encode()


def image(picture: np.ndarray | bytes, alt: str, lossless: bool = False) -> str:
    """Returns an image that carries its own data.

    Args:
        picture: uint8 `[H, W, 3]`, or the bytes of a PNG file.
        alt: What it shows, for those who do not see it.
        lossless: PNG instead of JPEG, for flat colours.
    """
    if isinstance(picture, bytes):
        data, kind = picture, "png"
    else:
        kind = "png" if lossless else "jpeg"
        encoded = io.BytesIO()
        Image.fromarray(picture).save(encoded, kind.upper(), quality=88, optimize=True)
        data = encoded.getvalue()
    return f'<img alt="{escape(alt)}" src="data:image/{kind};base64,{base64.b64encode(data).decode()}">'


def figure(picture: str, caption: str) -> str:
    """Returns an `image` with plain text below it."""
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def tiles(figures: Sequence[str]) -> str:
    """Returns figures side by side, in fewer columns on a phone."""
    return f'<div class="tiles" style="--columns: {len(figures)}">{"".join(figures)}</div>'


def details(summary: str, text: str) -> str:
    """Returns plain text behind a line that opens it."""
    return f"<details><summary>{escape(summary)}</summary><pre>{escape(text)}</pre></details>"


def mark(good: bool, text: str) -> str:
    """Returns plain text that stands out as good or bad."""
    return f'<span class="{"good" if good else "bad"}">{escape(text)}</span>'


def table(head: Sequence[str], rows: Sequence[Sequence[str]], total: bool = False) -> str:
    """Returns a table that scrolls sideways where it is too wide.

    Args:
        head: Plain text, one a column.
        rows: Plain text, or cells made by `number` and `bar`.
        total: Whether the last row is a sum or mean of the others.
    """
    lines = ["<thead><tr>", *(_cell("th", text) for text in head), "</tr></thead><tbody>"]
    for index, row in enumerate(rows):
        last = total and index == len(rows) - 1
        lines += ['<tr class="total">' if last else "<tr>", *(_cell("td", text) for text in row), "</tr>"]
    return f'<div class="scroll"><table>{"".join(lines)}</tbody></table></div>'


class Cell(str):
    """A ready cell of a table."""


def number(text: str) -> Cell:
    """Returns a cell of digits, set to the right."""
    return Cell(f'<td class="number">{escape(text)}</td>')


def bar(share: float | None, digits: int = 1) -> Cell:
    """Returns a cell that writes a share of 0 to 1 in percent and draws it; a dash for None."""
    if share is None:
        return number("-")
    return Cell(f'<td class="number bar" style="--part: {100 * share:.1f}%">{100 * share:.{digits}f}</td>')


def _cell(tag: str, text: str) -> str:
    return text if isinstance(text, Cell) else f"<{tag}>{escape(text)}</{tag}>"
