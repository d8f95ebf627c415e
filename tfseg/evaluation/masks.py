"""Evaluates a segmenter's label maps on the masks of a split, each image at its original size."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfseg import cli
from tfseg.data.bad_records import BadRecords
from tfseg.data.examples import Example, read_example
from tfseg.data.records import Split
from tfseg.data.voc_colors import save_indexed_png
from tfseg.errors import InputError, RecordError
from tfseg.evaluation.attention_control import MAPS, THRESHOLDS, threshold_maps
from tfseg.evaluation.attention_shares import attention_entry, mean_shares
from tfseg.evaluation.attention_statistics import statistics_of_entries
from tfseg.evaluation.label_quality import label_quality
from tfseg.evaluation.miou import ConfusionMatrix, count_pairs
from tfseg.evaluation.multilabel import number_or_none
from tfseg.evaluation.progress import Progress
from tfseg.evaluation.settings import Settings
from tfseg.inference.segmenter import Query, Segmentation, Segmenter

_DECODER = "decoder"
_ENTRIES = 4  # Changes with what an entry of the progress file holds.


def evaluate_masks(
    segmenter: Segmenter,
    split: Split,
    settings: Settings,
    output_dir: Path,
    fingerprint: dict[str, str] | None = None,
    on_image: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Evaluates every record that has a mask; an interrupted evaluation goes on where it stopped.

    Args:
        segmenter: With the label map of the split.
        split: Records with masks; background and the labels of its domain are evaluated.
        settings: See there.
        output_dir: Takes `progress.jsonl` and, if asked for, the comp6 pictures.
        fingerprint: Names the weights, see `ModelDir.fingerprint`; None starts anew.
        on_image: Called with (images done, images in all) when there is news.

    Returns:
        Ready for JSON, NaN as None: `miou` and `iou` by class in 0 to 1, `classes_counted`,
        `pixel_accuracy`, `images`, `images_without_mask`, `bad_records` (how many were left out, by
        kind); `label_quality` where labels were predicted; `attention_thresholds` for the control,
        whose headline is the best of them, and `attention_shares` and `attention_statistics`, where
        the attention of an image's labels lies.

    Raises:
        InputError: If label maps differ, no record has a mask, or a record is damaged and not to be left out.
    """
    split.require_labels(segmenter.label_map)
    records = [number for number, info in enumerate(split.infos) if info.has_mask]
    if not records:
        raise InputError(f"split {split.name} in {split.data_dir}: no record has a mask")
    bad_records = BadRecords(settings.on_bad_record)
    key = None if fingerprint is None else _key(segmenter, split, settings, fingerprint)
    with contextlib.closing(Progress(output_dir / "progress.jsonl", key)) as progress:
        on_image(len(progress.done), len(records))
        todo = [number for number in records if number not in progress.done]
        for number, found, example in _segment(segmenter, split, settings, todo):
            if isinstance(found, RecordError):
                bad_records.add(split, number, found)
            else:
                if settings.save_comp6:
                    _save_comp6(output_dir, split, number, found.label_map)
                progress.add(number, _entry(found, example, settings))
            on_image(len(progress.done) + len(bad_records), len(records))
    entries = [progress.done[number] for number in records if number in progress.done]
    if not entries:
        raise InputError(f"{split.data_dir}: no record of split {split.name} can be used ({bad_records})")
    counts = {"images": len(entries), "images_without_mask": len(split) - len(records)}
    return {**_metrics(entries, split, settings), **counts, "bad_records": bad_records.by_kind()}


def _segment(
    segmenter: Segmenter, split: Split, settings: Settings, numbers: list[int]
) -> Iterator[tuple[int, Segmentation | RecordError, Example | None]]:
    examples: dict[int, Example] = {}

    def read(number: int) -> Query:
        example = examples[number] = read_example(split, number)
        return Query(example.image, example.labels if settings.labels == "ground_truth" else None)

    stream = segmenter.segment_many(
        ((lambda number=number: read(number)) for number in numbers),
        crf=settings.crf.crf_parameters(),
        batch_size=settings.batch_size,
        crf_processes=settings.crf.crf_processes,
        keep_errors=settings.on_bad_record == "skip",
    )
    for number, found in zip(numbers, stream, strict=True):
        yield number, found, examples.pop(number, None)


def _entry(found: Segmentation, example: Example, settings: Settings) -> dict[str, Any]:
    truth, scores = example.mask, found.label_probabilities
    entry = {
        "labels": found.labels,
        "truth": example.labels,
        "scores": None if scores is None else [round(float(score), 6) for score in scores],
    }
    if settings.method != "attention":
        return {**entry, "counts": {_DECODER: count_pairs(truth, found.label_map)}}
    if found.attention is None:
        raise InputError("method=attention: this model does not give its attention")
    maps = {"attention": found.attention, "densified": found.densified}
    entry["counts"] = {
        f"{name}@{threshold}": count_pairs(truth, label_map)
        for name in MAPS
        for threshold, label_map in threshold_maps(
            maps[name], found.labels, *truth.shape, fit=found.image_fit
        ).items()
    }
    entry["attention"] = attention_entry(found.attention, found.labels, truth, found.image_fit)
    return entry


def _metrics(entries: list[dict], split: Split, settings: Settings) -> dict[str, Any]:
    evaluated = split.label_map.ids(split.domain)
    names = ["background", *(split.label_map.label(label).name for label in evaluated)]
    by_way: dict[str, dict[str, Any]] = {}
    for way in entries[0]["counts"]:
        matrix = ConfusionMatrix(evaluated)
        for entry in entries:
            matrix.add_counts(entry["counts"][way])
        iou = [number_or_none(value) for value in matrix.iou()]
        by_way[way] = {
            "miou": number_or_none(matrix.mean_iou()),
            "iou": dict(zip(names, iou, strict=True)),
            "classes_counted": sum(value is not None for value in iou),
            "pixel_accuracy": number_or_none(matrix.pixel_accuracy()),
        }
    best = max(by_way, key=lambda way: by_way[way]["miou"] or 0.0)
    metrics = {**by_way[best]}
    if settings.method == "attention":
        metrics["best_threshold"] = best
        metrics["attention_thresholds"] = {
            name: {str(t): by_way[f"{name}@{t}"]["miou"] for t in THRESHOLDS} for name in MAPS
        }
        attended = [entry["attention"] for entry in entries if entry["labels"]]
        metrics["attention_shares"] = mean_shares(attended, split.label_map)
        statistics = statistics_of_entries(attended, split.label_map.num_labels, evaluated)
        metrics["attention_statistics"] = statistics and statistics.to_dict()
    if settings.labels == "predicted":
        metrics["label_quality"] = label_quality(
            [entry["scores"] for entry in entries],
            [entry["labels"] for entry in entries],
            [entry["truth"] for entry in entries],
            split,
        )
    return metrics


def _save_comp6(output_dir: Path, split: Split, number: int, label_map: np.ndarray) -> None:
    short = split.name.removeprefix(f"{split.domain}_")
    folder = output_dir / "results" / "VOC2012" / "Segmentation" / f"comp6_{short}_cls"
    name = split.infos[number].image_id.replace("/", "_")
    save_indexed_png(folder / f"{name}.png", label_map)


def _key(
    segmenter: Segmenter, split: Split, settings: Settings, fingerprint: dict[str, str]
) -> dict[str, Any]:
    flags = cli.given_values(settings)
    for without_effect in ("batch_size", "crf_processes", "on_bad_record"):
        del flags[without_effect]
    return {
        "weights": fingerprint,
        "records": split.summary["sha256"],
        "split": split.name,
        "settings": flags,
        "entries": _ENTRIES,
        "options": dataclasses.asdict(segmenter.options),
    }
