"""The evaluation as text: IoU per class, beside the paper's Table 1 where that is comparable."""

from typing import Any

from tfseg.evaluation import published


def format_metrics(metrics: dict[str, Any], label_map_name: str, domain: str) -> str:
    """Returns the table that `tfseg.evaluate` prints, IoU in percent; of labels alone, their quality.

    Args:
        metrics: From `tfseg.evaluation.masks.evaluate_masks`, or `evaluate_labels`.
        label_map_name: The paper's columns stand there for `voc20_coco60` only.
        domain: And for its target domain only.
    """
    if "iou" not in metrics:
        return "\n".join([*_label_lines(metrics), f"{metrics['images']} images", *_skipped_lines(metrics)])
    comparable = label_map_name == published.LABEL_MAP and domain == "target"
    columns = list(published.PER_CLASS) if comparable else []
    width = max(len(name) for name in (*metrics["iou"], "classes counted"))
    lines = [f"{'class':<{width}}  {'IoU %':>6}" + "".join(f"  {name:>14}" for name in columns)]
    for name, iou in metrics["iou"].items():
        theirs = "".join(f"  {published.PER_CLASS[column][name]:>14.1f}" for column in columns)
        lines.append(f"{name:<{width}}  {_percent(iou):>6}{theirs}")
    lines.append("-" * len(lines[0]))
    theirs = "".join(f"  {published.MEANS[column]:>14.1f}" for column in columns)
    lines.append(f"{'mIoU':<{width}}  {_percent(metrics['miou']):>6}{theirs}")
    if comparable:
        lines.append("The columns on the right are the paper's Table 1, VOC 2012 val.")
    unseen = len(metrics["iou"]) - metrics["classes_counted"]
    if unseen:
        lines.append(f"-: neither in ground truth nor predicted, not in the mean ({unseen} classes)")
    lines.append(f"pixel accuracy {_percent(metrics['pixel_accuracy'])} %; {metrics['images']} images")
    lines += _skipped_lines(metrics) + _attention_lines(metrics) + _label_lines(metrics)
    return "\n".join(lines)


def _skipped_lines(metrics: dict[str, Any]) -> list[str]:
    kinds = metrics.get("bad_records")
    if not kinds:
        return []
    told = ", ".join(f"{kind}: {count}" for kind, count in kinds.items())
    return [f"{sum(kinds.values())} records left out, they cannot be used ({told})"]


def _attention_lines(metrics: dict[str, Any]) -> list[str]:
    if "attention_thresholds" not in metrics:
        return []
    lines = [f"mIoU % by threshold; above is the best, {metrics['best_threshold']}:"]
    grid = metrics["attention_thresholds"]
    for name, by_threshold in grid.items():
        cells = "  ".join(f"{t}: {_percent(value)}" for t, value in by_threshold.items())
        lines.append(f"  {name:<10} {cells}")
    shares = metrics["attention_shares"]
    if "inside" in shares:
        lines.append(
            f"attention, mean over classes: {_percent(shares['inside'])} % on the object, "
            f"{_percent(shares['border'])} % on the outermost positions "
            f"({_percent(shares['uniform_border'])} % if it were uniform)"
        )
    statistics = metrics.get("attention_statistics") or {}
    if statistics.get("same_position") is not None:
        lines.append(
            f"over images: {_percent(statistics['inside'])} % on the object, which covers "
            f"{_percent(statistics['area'])} %; the most attended position of a label is the same one in "
            f"{_percent(statistics['same_position'])} %; {_percent(statistics['image_share'])} % of the "
            "attention's variance comes from the image"
        )
    return lines


def _label_lines(metrics: dict[str, Any]) -> list[str]:
    quality = metrics.get("label_quality")
    if quality is None:
        return []
    return [
        f"predicted labels: precision {_percent(quality['precision'])} %, "
        f"recall {_percent(quality['recall'])} %, F1 {_percent(quality['f1'])} %, "
        f"exact set {_percent(quality['exact_set'])} % of images, "
        f"mAP {_percent(quality['map'])} %"
    ]


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"
