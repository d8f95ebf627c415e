"""The sections of a run's report, each from data to HTML."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tfseg.data.labels import LabelMap
from tfseg.errors import InputError
from tfseg.inference.segmentation import Segmentation
from tfseg.reporting import html, tiles
from tfseg.reporting.curves import draw_curves
from tfseg.reporting.durations import format_seconds
from tfseg.reporting.examples import Example
from tfseg.reporting.export_check import TOLERANCE, ExportCheck
from tfseg.reporting.provenance import StageRun
from tfseg.reporting.results import KINDS, per_class

_TITLES = {
    "ground_truth": "mIoU with ground-truth labels",
    "predicted": "mIoU with predicted labels",
    "attention": "mIoU of the thresholded attention",
}
_SIDE = 256
_FIGURE_WIDTH = 1400


def headline(evaluations: dict[str, dict[str, Any]], seed: str) -> list[str]:
    """Shows the three mIoUs, each with the command that measured it."""
    cards = []
    for kind, metrics in evaluations.items():
        miou = metrics["miou"]
        text = f"{metrics['images']} images, {metrics['classes_counted']} classes, seed {seed}"
        if "best_threshold" in metrics:
            text += f", best threshold {metrics['best_threshold']}"
        cards.append(
            f'<div class="card{" first" if kind == "ground_truth" else ""}" data-kind="{kind}">'
            f'{html.escape(_TITLES[kind])}<b data-miou="{miou!r}">{100 * miou:.1f} %</b>'
            f'<span class="muted">{html.escape(text)}</span>'
            f"{html.details('command', metrics['command'])}</div>"
        )
    gain = 100 * (evaluations["ground_truth"]["miou"] - evaluations["attention"]["miou"])
    mark = html.mark(gain > 0, f"{gain:+.1f} points")
    return [
        f'<div class="cards">{"".join(cards)}</div>',
        f"<p>Decoding the attention against thresholding it, both with ground-truth labels: {mark}. The "
        "threshold is the best one on these very images, which favours the attention.</p>",
    ]


def example_row(example: Example, found: Segmentation, label: int, label_map: LabelMap) -> str:
    """Shows input, attention, densified attention, probability, label map and ground truth of a label.

    Args:
        example: With ground truth.
        found: By a network that tells its attention, for labels among which `label` is.
        label: The label whose maps are drawn.
        label_map: Names the labels.
    """
    k, image, name = found.labels.index(label), example.image, label_map.label(label).name
    pictures = [
        (tiles.fit_image(image, _SIDE), f"input {example.name}"),
        (tiles.heat_tile(image, found.attention[k], _SIDE), f"attention: {name}"),
        (tiles.heat_tile(image, found.densified[k], _SIDE), f"densified attention: {name}"),
        (tiles.probability_tile(found.probabilities[k], _SIDE), f"mask probability: {name}"),
        (tiles.overlay_tile(image, found.label_map, _SIDE), "label map"),
        (tiles.overlay_tile(image, example.truth, _SIDE), "ground truth"),
    ]
    return html.tiles([html.figure(html.image(picture, text), text) for picture, text in pictures])


def examples(rows: list[tuple[Example, Segmentation, int, str]], label_map: LabelMap) -> list[str]:
    """Shows one row a (example, segmentation, label, predicted labels as text)."""
    lines = [
        "<h2>Examples</h2>",
        "<p>The first images of the split in which each label occurs, one label after the other. The "
        "network was asked for the labels of the ground truth; what the classifier says stands beside "
        "them. Heat runs from dark blue (lowest in the image) to red (highest); probability from black (0) "
        "to white (1).</p>",
    ]
    for example, found, label, predicted in rows:
        names = ", ".join(label_map.label(i).name for i in found.labels)
        lines.append(
            f"<h3>{html.escape(names)} <small>{html.escape(predicted)}</small></h3>"
            + example_row(example, found, label, label_map)
        )
    return lines


def predicted_text(found: Segmentation, label_map: LabelMap) -> str:
    """Names the labels that a classifier chose, with their probabilities."""
    scores = found.label_probabilities
    said = (f"{label_map.label(i).name} {100 * scores[i - 1]:.0f} %" for i in found.labels)
    return "classifier: " + ", ".join(said)


def iou_table(evaluations: dict[str, dict[str, Any]]) -> list[str]:
    """Shows IoU per class of all evaluations side by side."""
    rows = [[name, *(html.bar(value) for value in values)] for name, values in per_class(evaluations)]
    return [
        "<h2>IoU by class, percent</h2>",
        html.table(["class", *KINDS.values()], rows, total=True),
        '<p class="muted">Every image at its original size, pixels marked 255 left out. A dash: neither in '
        "the ground truth nor predicted, and not in the mean.</p>",
        *_label_quality(evaluations["predicted"].get("label_quality")),
    ]


def _label_quality(quality: dict[str, Any] | None) -> list[str]:
    if quality is None:
        return []
    names = {"precision": "precision", "recall": "recall", "exact_set": "exact set", "map": "mean AP"}
    said = ", ".join(f"{text} {_percent(quality[name])}" for name, text in names.items())
    return [f"<p>Predicted labels, in percent: {said}.</p>"]


def curves(stages: list[StageRun]) -> list[str]:
    """Shows the losses of each stage."""
    lines = ["<h2>Training curves</h2>"]
    for stage in stages:
        if not stage.losses:
            continue
        title = f"Stage {stage.name} <small>{stage.losses[-1]['step']} updates</small>"
        pictures = draw_curves(stage.losses).items()
        panels = [html.image(picture, f"{what} of stage {stage.name}") for what, picture in pictures]
        lines.append(f'<h3>{title}</h3><div class="panels">{"".join(panels)}</div>')
    return lines


def paper_figures(files: Sequence[Path]) -> list[str]:
    """Shows pictures of `tfseg.figures`, reduced to a screen's width.

    Raises:
        InputError: If a file is missing or no picture.
    """
    lines = ["<h2>Figures of the paper</h2>"] if files else []
    for path in files:
        try:
            with Image.open(path) as opened:
                picture = opened.convert("RGB")
        except OSError as error:
            raise InputError(f"{path}: not a picture that can be shown; tfseg.figures makes them") from error
        picture.thumbnail((_FIGURE_WIDTH, 10 * _FIGURE_WIDTH), Image.Resampling.LANCZOS)
        lines.append(html.figure(html.image(np.asarray(picture), path.stem), path.stem))
    return lines


def export_section(check: ExportCheck, label: str) -> list[str]:
    """Shows what the export and the Keras model say of one image."""
    difference = np.abs(check.exported - check.expected)
    shown = [
        (check.square, "input"),
        (tiles.probability_tile(check.exported, _SIDE), f"export: {label}"),
        (tiles.probability_tile(check.expected, _SIDE), f"Keras model: {label}"),
        (tiles.probability_tile(difference / TOLERANCE, _SIDE), f"difference, white is {TOLERANCE:.0e}"),
    ]
    figures = [html.figure(html.image(picture, text), text) for picture, text in shown]
    mark = html.mark(check.passed, f"{check.difference:.1e}")
    reason = "" if check.passed else " Was it exported from other weights, or in another precision?"
    return [
        "<h2>Export</h2>",
        f"<p><code>{html.escape(str(check.path))}</code>, loaded without the code of the model and called on "
        f"a validation image: its probabilities differ from the Keras model's by at most {mark} (allowed: "
        f"{TOLERANCE:.0e}).{reason}</p>",
        html.tiles(figures),
    ]


def making(stages: list[StageRun], evaluations: dict[str, dict[str, Any]], model_dir: Path) -> list[str]:
    """Shows how long everything took, on what, with which flags."""
    rows = [
        [
            f"train {stage.name}",
            html.number(str(stage.losses[-1]["step"]) if stage.losses else "-"),
            html.number(stage.flag("seed") or "-"),
            html.number(format_seconds(stage.seconds)),
        ]
        for stage in stages
    ]
    rows += [
        [f"evaluate: {KINDS[kind]}", html.number("-"), html.number("-"), html.number(_seconds(metrics))]
        for kind, metrics in evaluations.items()
    ]
    known = [stage.seconds for stage in stages] + [e.get("seconds") for e in evaluations.values()]
    total = None if None in known else sum(known)
    rows.append(["in all", html.number(""), html.number(""), html.number(format_seconds(total))])
    run = stages[-1].run if stages else {}
    versions = [f"{name} {run[name]}" for name in ("python", "tensorflow", "keras", "numpy") if name in run]
    return [
        "<h2>How it was made</h2>",
        html.table(["step", "updates", "seed", "wall time"], rows, total=True),
        f"<p>{html.escape(', '.join(versions) or 'versions unknown')}; "
        f"{html.escape(', '.join(run.get('devices', [])))}; {run.get('parameters', 0):,} parameters.</p>",
        *(html.details(f"flags of {stage.name}", stage.flags) for stage in stages if stage.flags),
        *(html.details(f"data of {stage.name}", _data(stage)) for stage in stages if stage.run.get("data")),
        html.details("configuration of the network", (model_dir / "model.json").read_text()),
    ]


def _data(stage: StageRun) -> str:
    lines = []
    for domain, data in stage.run["data"].items():
        counts = f"{data['images']} images, {data['pairs']} pairs, {data['masks']} masks"
        lines.append(f"{domain}: {data['split']}, {counts}")
        lines += [f"  sha256 {digest}  {shard}" for shard, digest in data["sha256"].items()]
    return "\n".join(lines)


def _seconds(metrics: dict[str, Any]) -> str:
    return format_seconds(metrics.get("seconds"))


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
