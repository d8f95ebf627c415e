"""Training curves as pictures."""

import io
from collections.abc import Sequence

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

_COLORS = ("#1d5fbf", "#c8551b", "#2a8a57", "#7b3fa0")


def draw_curves(entries: Sequence[dict[str, float]]) -> dict[str, bytes]:
    """Draws the losses of a stage and its accuracies.

    Args:
        entries: From `tfseg.training.monitor.read_losses`, at least one.

    Returns:
        PNG files, `losses` and, where there are any, `accuracies`.
    """
    names = [name for name in entries[-1] if name != "step"]
    accuracies = [name for name in names if name.endswith("accuracy")]
    losses = [name for name in names if name not in accuracies]
    if len(losses) == 2:
        losses.remove("loss")  # the sum of one term
    panels = {"losses": losses, "accuracies": accuracies}
    return {title: _draw(entries, group) for title, group in panels.items() if group}


def _draw(entries: Sequence[dict[str, float]], names: Sequence[str]) -> bytes:
    # Without pyplot nothing global is touched, and no window system is looked for.
    figure = Figure(figsize=(4.4, 2.7), dpi=200, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots()
    for name, color in zip(names, _COLORS, strict=False):
        points = [(entry["step"], entry[name]) for entry in entries if name in entry]
        steps, values = np.array(points, float).T
        axes.plot(steps, values, color=color, alpha=0.2, linewidth=0.8)
        axes.plot(steps, running_mean(values, len(values) // 40), color=color, label=_title(name))
    axes.set_xlabel("update")
    axes.set_ylim(bottom=0)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.grid(color="#e2e6ec")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    encoded = io.BytesIO()
    canvas.print_png(encoded)
    return encoded.getvalue()


def running_mean(values: np.ndarray, radius: int) -> np.ndarray:
    """Returns the mean over up to `radius` neighbours on each side, float `[N]`."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    index = np.arange(len(values))
    low, high = np.maximum(index - radius, 0), np.minimum(index + radius + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _title(name: str) -> str:
    known = {
        "loss": "loss",
        "cls_loss": "classification loss, eq. (6)",
        "seg_loss": "segmentation loss, eq. (8)",
        "cls_accuracy": "classification accuracy",
        "label_accuracy": "label accuracy",
    }
    return known.get(name, name)
