"""Plots: bars and curves with error bars for tables, losses of a training; PNG files."""

import io
import math
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullLocator

from tfseg.paper.tables import Spread

_COLORS = ("#1d5fbf", "#c8551b", "#2a8a57", "#7b3fa0")
_GRID = "#e2e6ec"
_LOSSES = {
    "cls_loss": "classification loss, eq. (6)",
    "seg_loss": "segmentation loss, eq. (8)",
    "cls_accuracy": "classification accuracy",
    "label_accuracy": "label accuracy",
}


def draw_rows(spreads: Mapping[str, Spread], label: str) -> bytes:
    """Draws one bar a row, the first on top: mean, standard deviation, and the runs they come from.

    Args:
        spreads: Shares of 0 to 1 by row; rows without runs stay empty.
        label: Of the axis, which is in percent.
    """
    figure, axes = _figure(6.9, 0.9 + 0.34 * len(spreads))
    for place, (name, spread) in enumerate(spreads.items()):
        if not spread.n:
            continue
        color = _COLORS[1] if "thresholded" in name else _COLORS[0]
        axes.barh(place, 100 * spread.mean, height=0.62, color=color, alpha=0.85)
        end = 100 * spread.mean
        if spread.n > 1:
            axes.errorbar(100 * spread.mean, place, xerr=100 * spread.std, color="black", capsize=3)
            end += 100 * spread.std
        axes.text(end + 0.8, place, f"{spread.percent()}  (n={spread.n})", va="center", fontsize=8)
    axes.set_yticks(range(len(spreads)), spreads, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(0, max((100 * s.mean for s in spreads.values() if s.n), default=50) * 1.35)
    axes.set_xlabel(label)
    axes.grid(axis="x", color=_GRID)
    return _encode(figure)


def draw_curves(
    xs: Sequence[float], curves: Mapping[str, Sequence[Spread]], x_label: str, y_label: str
) -> bytes:
    """Draws curves with error bars over a logarithmic axis.

    Args:
        xs: Above 0.
        curves: By name, shares of 0 to 1, one for each x; those without runs are left out.
        x_label: Of the horizontal axis.
        y_label: Of the vertical axis, which is in percent.
    """
    figure, axes = _figure(5.0, 3.4)
    for (name, spreads), color in zip(curves.items(), _COLORS, strict=False):
        points = [
            (x, 100 * s.mean, 0.0 if math.isnan(s.std) else 100 * s.std)
            for x, s in zip(xs, spreads, strict=True)
            if s.n
        ]
        if points:
            x, mean, std = zip(*points, strict=True)
            runs = sorted({s.n for s in spreads if s.n})
            n = f"n={runs[0]}" if len(runs) == 1 else f"n={runs[0]} to {runs[-1]}"
            axes.errorbar(x, mean, yerr=std, color=color, marker="o", ms=4, capsize=3, label=f"{name} ({n})")
    axes.set_xscale("log")
    axes.set_xticks(list(xs), [f"{x:g}" for x in xs])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_ylim(bottom=0)
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(color=_GRID)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=False)
    return _encode(figure)


def draw_losses(entries: Sequence[dict[str, float]]) -> dict[str, bytes]:
    """Draws the losses of a stage and its accuracies, thin as they are and smoothed.

    Args:
        entries: Of the stage's log of losses, one an update, at least one.

    Returns:
        PNG files, `losses` and, where there are any, `accuracies`.
    """
    names = [name for name in entries[-1] if name != "step"]
    accuracies = [name for name in names if name.endswith("accuracy")]
    losses = [name for name in names if name not in accuracies]
    if len(losses) == 2:
        losses.remove("loss")  # the sum of one term
    panels = {"losses": losses, "accuracies": accuracies}
    return {title: _draw_smoothed(entries, group) for title, group in panels.items() if group}


def running_mean(values: np.ndarray, radius: int) -> np.ndarray:
    """Returns the mean over up to `radius` neighbours on each side, float `[N]`."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - radius, 0), np.minimum(index + radius + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _draw_smoothed(entries: Sequence[dict[str, float]], names: Sequence[str]) -> bytes:
    figure, axes = _figure(4.4, 2.7, dpi=200)
    for name, color in zip(names, _COLORS, strict=False):
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        steps, values = np.array(points, float).T
        axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
        label = _LOSSES.get(name, name)
        axes.plot(steps, running_mean(values, len(values) // 40), color=color, label=label)
    axes.set_xlabel("update")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(color=_GRID)
    axes.legend(frameon=False)
    return _encode(figure)


def _figure(width: float, height: float, dpi: int = 300) -> tuple[Figure, Axes]:
    # Without pyplot nothing global is touched, and no window system is looked for.
    figure = Figure(figsize=(width, height), dpi=dpi, layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_axisbelow(True)
    return figure, axes


def _encode(figure: Figure) -> bytes:
    encoded = io.BytesIO()
    FigureCanvasAgg(figure).print_png(encoded)
    return encoded.getvalue()
