"""The names of all commands: `tfseg train ...` is `python -m tfseg.train ...`, called by `tfseg.__main__`."""

from collections.abc import Sequence

from tfseg.shipped import INSTALLED

GROUPS: dict[str, dict[str, tuple[str, str]]] = {
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
"""Short name, module as the repository names it, and what it does, by topic."""
COMMANDS = {name: module for group in GROUPS.values() for name, (module, _) in group.items()}
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
