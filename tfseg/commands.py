"""All commands of the project by short names: `tfseg train ...` is `python -m tfseg.train ...`.

Nothing but the command that is called is imported.
"""

import difflib
import importlib
import sys
import textwrap
from collections.abc import Sequence

from tfseg import __version__, stopping
from tfseg.shipped import INSTALLED, recipes

_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "data": {
        "label-map": ("tfrecords.label_map", "writes a label map: the categories of both domains"),
        "build folder": (
            "tfrecords.build_folder",
            "records of class folders, CSV files or images with masks",
        ),
        "build coco": ("tfrecords.build_coco", "records of a dataset in COCO's layout"),
        "build voc": ("tfrecords.build_voc", "records of a dataset in VOC's layout"),
        "build synthetic": ("tfrecords.build_synthetic", "draws a two-domain dataset"),
        "verify": ("tfrecords.verify", "reads all records again and lists damage"),
    },
    "models": {
        "train": ("tfseg.train", "trains one stage of a network"),
        "adapt": ("tfseg.adapt", "adds categories to a trained network, by image labels alone"),
        "import-caffe": ("tfseg.import_caffe", "makes a model directory of the authors' Caffe files"),
        "evaluate": ("tfseg.evaluate", "measures a model on records"),
        "predict": ("tfseg.predict", "segments image files"),
        "page": ("tfseg.page", "serves a page on this machine to try a model"),
    },
    "export": {
        "export": ("export.saved_model", "writes a SavedModel and checks it"),
        "verify-export": ("export.verify", "computes the recorded answers of an export again"),
        "serve-files": ("export.serve_files", "writes the files that TensorFlow Serving needs"),
        "client": ("export.client", "sends images to a server, or to an export"),
        "batch-predict": ("export.batch_predict", "segments many files on Apache Beam (extra [beam])"),
    },
    "paper": {
        "report": ("tfseg.report", "writes a page about a run"),
        "figures": ("tfseg.figures", "draws figures of the paper"),
        "table1": ("tfseg.experiments.table1", "reproduces table 1"),
        "figure4": ("tfseg.experiments.figure4", "reproduces figure 4"),
        "exchanged-maps": ("tfseg.experiments.exchanged_maps", "measures what the decoder does with its map"),
    },
}
COMMANDS = {name: module for group in _GROUPS.values() for name, (module, _) in group.items()}
"""Modules of the commands, as the repository names them, by short name."""


def called(module: str) -> str:
    """Returns how a command is called here: by its module, or by `tfseg` where that is installed.

    Args:
        module: As the repository names it, `export.saved_model`.
    """
    names = {of: name for name, of in COMMANDS.items()}
    return f"tfseg {names[module]}" if INSTALLED and module in names else f"python -m {module}"


def find(words: Sequence[str]) -> tuple[str, list[str]] | None:
    """Returns the command that a line begins with, and the words behind it; None where there is none."""
    for count in (2, 1):
        name = " ".join(words[:count]).replace("_", "-")
        if name in COMMANDS:
            return name, list(words[count:])
    return None


def main(argv: Sequence[str] | None = None) -> int:
    """Calls a command by its short name.

    Args:
        argv: The name, then its flags and words; None for those of the process.

    Returns:
        The exit status.
    """
    if argv is None:
        stopping.end_imports()
        try:
            return main(sys.argv[1:])
        finally:
            stopping.end_silently()
    words = list(argv)
    if found := find(words):
        name, rest = found
        module = COMMANDS[name]
        inside = INSTALLED and not module.startswith("tfseg.")
        return importlib.import_module(f"tfseg.{module}" if inside else module).main(rest)
    from tfseg.cli import show

    if words and words[0] == "--version":
        return show(f"tfseg {__version__}")
    if not words or words[0] in ("--help", "-h", "help"):
        return show(_help())
    if words[0] == "build" and (len(words) == 1 or words[1] in ("--help", "-h")):
        return show(_lines([name for name in COMMANDS if name.startswith("build ")]))
    return _unknown(words)


def _help() -> str:
    parts = ["Segments categories for which nobody drew a mask (TransferNet)."]
    parts.append("\nusage: tfseg COMMAND --FLAG=VALUE ...")
    for title, group in _GROUPS.items():
        parts.append(f"\n{title}:\n{_lines(list(group))}")
    parts.append("\ntfseg COMMAND --help lists the flags of a command.")
    known = textwrap.fill(", ".join(recipes()), 90, initial_indent="  ", subsequent_indent="  ")
    parts.append(f"--flagfile=tfseg:official/joint.cfg takes a recipe that ships; their folders are\n{known}")
    return "\n".join(parts)


def _lines(names: Sequence[str]) -> str:
    texts = {name: text for group in _GROUPS.values() for name, (_, text) in group.items()}
    return "\n".join(f"  {name:16} {texts[name]}" for name in names)


def _unknown(words: Sequence[str]) -> int:
    from tfseg.cli import BAD_INPUT

    name = " ".join(words[:2]) if words[0] == "build" else words[0]
    tried = (" ".join(words[:2]), words[0])
    near = [one for text in tried for one in difflib.get_close_matches(text, COMMANDS, n=1, cutoff=0.5)]
    hint = f"; did you mean {near[0]}?" if near else ""
    print(f"error: there is no command {name!r}{hint} (tfseg --help lists them)", file=sys.stderr)
    return BAD_INPUT
