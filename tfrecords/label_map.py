"""Writes a label map of the categories that a COCO file, a VOC folder, class folders or a CSV file have.

A map holds the categories of both domains, so it is made in two calls: the second starts from the map of
the first, --label_map, whose labels keep their ids. A category that is there already is not added again.
Masks do not tell the names of their values: --names lists them.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tfseg import cli
from tfseg.data.labels import Domain, LabelMap
from tfseg.errors import InputError
from tfseg.files import is_hidden, read_json, require_output_file, write_atomic

EXAMPLES = (
    "--from=instances_train2017.json --domain=source --output=labels.json",
    "--from=photographs --domain=target --label_map=labels.json --output=labels.json",
    "--names=disk,triangle --domain=source --output=labels.json",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelMapOptions:
    """Where categories are found; each field is a flag."""

    domain: Domain = cli.flag("Domain of the categories: source (has masks) or target (has labels only).")
    output: Path = cli.flag("Label map to write (JSON).")
    from_: Path | None = cli.flag(
        "COCO file (.json), folder in VOC's layout or of class folders, or CSV file (file,label1;label2).",
        default=None,
        exists="file",
    )
    names: tuple[str, ...] = cli.flag(
        "The categories themselves, in place of --from.", default=(), separator=","
    )
    label_map: Path | None = cli.flag(
        "Label map to start from; its labels keep their ids.", default=None, exists="file"
    )
    name: str = cli.flag("Name of the map; empty: that of --label_map, or of the file.", default="")

    def __post_init__(self) -> None:
        """Refuses a call that does not tell where the categories come from, or tells it twice."""
        if (self.from_ is None) == (not self.names):
            raise InputError("give --from=FILE|FOLDER or --names=NAME,NAME: one of them tells the categories")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfrecords.label_map", __doc__, LabelMapOptions, _run, argv, EXAMPLES)


def _run(options: LabelMapOptions) -> None:
    require_output_file(options.output, "--output=")
    base = LabelMap.load(options.label_map) if options.label_map else None
    name = options.name or (base.name if base else options.output.stem)
    names = categories(options.from_) if options.from_ else _once(n.strip() for n in options.names)
    found, there = extend(base, names, options.domain, name)
    write_atomic(options.output, text(found).encode())
    for label in there:
        print(f"{label}: in the map already, as {found.find(label).domain}")
    targets, sources = len(found.ids("target")), len(found.ids("source"))
    print(f"{options.output}: {found.num_labels} labels, {targets} target and {sources} source")


def categories(path: Path) -> list[str]:
    """The categories that a dataset has.

    Args:
        path: a COCO file (those with annotations, by their ids), a folder in VOC's layout (the classes of all
            objects, by name), a folder of class folders, or a CSV file.

    Raises:
        InputError: it is none of these, or has none.
    """
    if path.is_dir() and (path / "Annotations").is_dir():
        found = _of_voc(path / "Annotations")
    elif path.is_dir():
        found = _of_folders(path)
    elif path.suffix.lower() == ".json":
        found = _of_coco(path)
    else:
        found = _of_csv(path)
    if not found:
        raise InputError(f"--from={path}: has no category")
    return found


def extend(
    base: LabelMap | None, names: Sequence[str], domain: Domain, name: str
) -> tuple[LabelMap, list[str]]:
    """Adds categories to a label map.

    Args:
        base: its labels keep their ids; None for none.
        names: of the categories.
        domain: of them.
        name: of the new map.

    Returns:
        The new map, and those of the names that `base` has.

    Raises:
        InputError: there are too many.
    """
    labels: list[dict[str, Any]] = base.to_dict()["labels"] if base else []
    there = [category for category in names if base and base.find(category)]
    new = [category for category in names if category not in there]
    labels += [
        {"id": number, "name": category, "domain": domain, "aliases": []}
        for number, category in enumerate(new, start=len(labels) + 1)
    ]
    return LabelMap.from_dict({"name": name, "labels": labels}), there


def text(label_map: LabelMap) -> str:
    """A label map as JSON, one label a line."""
    content = label_map.to_dict()
    labels = ",\n".join(f"    {json.dumps(label, ensure_ascii=False)}" for label in content["labels"])
    name = json.dumps(content["name"], ensure_ascii=False)
    return f'{{\n  "name": {name},\n  "labels": [\n{labels}\n  ]\n}}\n'


def _of_coco(path: Path) -> list[str]:
    from .checks import identifier

    content = read_json(path)
    entries = content.get("categories") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InputError(f'{path}: is not a COCO annotation file: "categories" must be a list of objects')
    annotations = content.get("annotations")
    annotations = annotations if isinstance(annotations, list) else []
    used = {identifier(entry.get("category_id")) for entry in annotations if isinstance(entry, dict)}
    named = {identifier(entry.get("id")): entry.get("name") for entry in entries}
    kept = [key for key in named if key in used] if annotations else list(named)
    for key in kept:
        if key is None or not isinstance(named[key], str) or not named[key].strip():
            raise InputError(f"{path}: the category {key} needs an id and a name")
    return _once(named[key].strip() for key in sorted(kept, key=lambda key: (isinstance(key, str), key)))


def _of_voc(annotations: Path) -> list[str]:
    from .voc_files import read_objects

    files = sorted(path for path in annotations.glob("*.xml") if not is_hidden(path.name))
    return _once(sorted({name for path in files for name in read_objects(path)} - {""}))


def _of_folders(folder: Path) -> list[str]:
    from .image_paths import images_in

    files = [file_name for file_name in images_in(folder) if "/" in file_name]
    names = _once(file_name.partition("/")[0] for file_name in files)
    inside = _once(file_name.split("/")[1] for file_name in files if file_name.count("/") > 1)
    if len(names) == 1 and len(inside) > 1 and all(file_name.count("/") > 1 for file_name in files):
        raise InputError(
            f"--from={folder}: its only folder, {names[0]}, holds folders in place of images: "
            f"--from={folder / names[0]} has {', '.join(inside)}; if {names[0]} is the category, "
            f"--names={names[0]} says so"
        )
    return names


def _of_csv(path: Path) -> list[str]:
    from .folder_lists import labels_of, read_rows

    return _once(sorted({label for _, row in read_rows(path) for label in labels_of(row)}))


def _once(names: Iterator[str] | Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    sys.exit(main())
