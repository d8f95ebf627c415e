"""Times the builders of records: one process against several, memory by the number of images, a large JSON.

The images are drawn. Memory is the largest of the builder's own process and its workers, each run in a
process of its own; a COCO file of many polygons, whose images are not there, is read as far as the first of
them.
"""

import contextlib
import dataclasses
import functools
import io
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks import timing
from tfseg import cli

EXAMPLES = ("--output=builders.json", "--images=60 --json_mb=0 --rounds=1")
# What a process takes at most, printed by itself.
_BUILD = """
import json, resource, sys
from tfrecords import build_coco
status = build_coco.main(sys.argv[1:])
peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
print(json.dumps({"status": status, "peak_mb": max(peaks) / 1e3}))
"""
_IMPORT = """
import json, resource
from tfrecords import build_coco, coco
print(json.dumps({"status": 0, "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}))
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class BenchmarkOptions:
    """What is timed; each field is a flag."""

    images: int = cli.flag(
        "Images that are built at once; memory is taken at a quarter, too.", default=400, lower=8
    )
    image_size: int = cli.flag("Side of the images.", default=320, lower=64)
    processes: int = cli.flag("Processes, against one.", default=max(2, timing.cores()), lower=2)
    json_mb: int = cli.flag("Size of the annotation file, MB; 0 leaves it out.", default=200, lower=0)
    rounds: int = cli.flag("Timed rounds; the median counts.", default=3, lower=1)
    output: Path | None = cli.flag("JSON file for the figures.", default=None)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("benchmarks.builders", __doc__, BenchmarkOptions, _run, argv, EXAMPLES)


def _run(options: BenchmarkOptions) -> None:
    results: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        drawn = _draw(Path(folder), options)
        results["processes"] = measure_processes(options, drawn)
        print_processes(results["processes"])
        results["memory"] = measure_memory(options, drawn)
        if options.json_mb:
            results["json"] = measure_json(options, Path(folder))
        print_memory(results["memory"] | results.get("json", {}))
    timing.write(options.output, options, results)


def _draw(folder: Path, options: BenchmarkOptions) -> dict[int, Path]:
    """Draws sets of a quarter of the images and of all; returns their folders by number of images."""
    from tfrecords import synthetic

    sets = {}
    for count in (options.images // 4, options.images):
        sets[count] = folder / f"drawn{count}"
        sizes = {"source_train": count, "target_train": 1, "target_val": 1}
        drawing = synthetic.Options(0, image_size=options.image_size, **sizes)
        synthetic.build(sets[count], drawing, workers=timing.cores())
    return sets


def _flags(drawn: Path, output: Path, workers: int) -> list[str]:
    return [
        f"--annotations={drawn / 'coco/annotations/instances_train.json'}",
        f"--images={drawn / 'coco/train'}",
        f"--label_map={drawn / 'labels.json'}",
        f"--split=source_{workers}",
        f"--output_dir={output}",
        f"--workers={workers}",
        "--num_shards=8",
    ]


def measure_processes(options: BenchmarkOptions, drawn: dict[int, Path]) -> dict[str, dict]:
    """Times building all images with one process and with several, in turn; starts of processes included.

    Returns:
        `{"1 process" | "N processes": spreads of "wall_s" and "cpu_s", "images_per_s" by the clock, and
        "speed", times as fast as one process by the clock}`.
    """
    from tfrecords import build_coco

    folder = drawn[options.images]

    def build(workers: int) -> None:
        with contextlib.redirect_stdout(io.StringIO()):
            build_coco.main(_flags(folder, folder.with_name("records"), workers))

    measurements = {
        f"{count} process{'es' * (count > 1)}": functools.partial(timing.measured, lambda n=count: build(n))
        for count in (1, options.processes)
    }
    taken = timing.in_turn(measurements, options.rounds)
    return {
        name: timing.times(entries)
        | {
            "images_per_s": timing.spread([options.images / entry["wall_s"] for entry in entries]),
            "speed": timing.ratios(taken["1 process"], entries)["wall_s"],
        }
        for name, entries in taken.items()
    }


def measure_memory(options: BenchmarkOptions, drawn: dict[int, Path]) -> dict[str, float]:
    """Returns the peak memory in MB of building a quarter of the images and all, and of the imports alone."""
    found = {"imports alone": _peak(_IMPORT, [])}
    for count, folder in drawn.items():
        found[f"{count} images"] = _peak(_BUILD, _flags(folder, folder.with_name(f"memory{count}"), 1))
    return found


def measure_json(options: BenchmarkOptions, folder: Path) -> dict[str, float]:
    """Returns the peak memory in MB of reading a COCO file of `options.json_mb` MB, and of a tenth of it."""
    from tfrecords import synthetic

    images = folder / "none"
    images.mkdir()
    labels = folder / "labels.json"
    labels.write_text(json.dumps(synthetic.label_map().to_dict()))
    found = {}
    for megabytes in (max(1, options.json_mb // 10), options.json_mb):
        path = folder / f"annotations{megabytes}.json"
        _write_annotations(path, megabytes)
        flags = [f"--annotations={path}", f"--images={images}", f"--label_map={labels}", "--split=source"]
        found[f"JSON of {megabytes} MB"] = _peak(_BUILD, [*flags, f"--output_dir={folder / 'out'}"])
    return found


def _write_annotations(path: Path, megabytes: int) -> None:
    """Writes a COCO file as COCO's own: polygons of some 40 corners with two decimals, seven an image."""
    from tfrecords.synthetic import label_map

    names = [label.name for label in label_map().labels if label.domain == "source"]
    rng = np.random.default_rng(0)
    polygons = [np.round(rng.uniform(0, 400, 80), 2).tolist() for _ in range(50)]
    images = 150 * megabytes  # About 7 kB each.
    with open(path, "w") as file:
        categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
        file.write(f'{{"categories": {json.dumps(categories)},\n "images": [')
        for i in range(images):
            entry = {"id": i, "file_name": f"{i:012d}.jpg", "height": 480, "width": 640}
            file.write(f"{',' * (i > 0)}\n{json.dumps(entry)}")
        file.write('],\n "annotations": [')
        number = 0
        while file.tell() < 1e6 * megabytes:
            entry = {"id": number, "image_id": number // 7 % images, "category_id": 1 + number % len(names)}
            entry |= {
                "segmentation": [polygons[number % 50]],
                "area": 900.0,
                "bbox": [0, 0, 400, 400],
                "iscrowd": 0,
            }
            file.write(f"{',' * (number > 0)}\n{json.dumps(entry)}")
            number += 1
        file.write("]}\n")


def _peak(code: str, flags: Sequence[str]) -> float:
    environment = {**os.environ, "PYTHONPATH": str(timing.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code, *flags], env=environment, stdout=subprocess.PIPE, text=True, check=True,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    return json.loads(done.stdout.splitlines()[-1])["peak_mb"]


def print_processes(results: dict[str, dict]) -> None:
    """Prints images a second and how many times as fast as one process."""
    rows = [
        [
            name,
            timing.shown(row["images_per_s"], 1),
            f"{timing.shown(row['speed'])}x",
            f"{row['cpu_s']['median']:.1f}",
        ]
        for name, row in results.items()
    ]
    timing.print_table(["build_coco", "images/s", "as fast as one", "processors, s"], rows)


def print_memory(results: dict[str, float]) -> None:
    """Prints peak memory."""
    print()
    timing.print_table(["peak memory", "MB"], [[name, f"{peak:.0f}"] for name, peak in results.items()])


if __name__ == "__main__":
    sys.exit(main())
