"""What a builder and the verifier tell of a split, as text."""

from collections.abc import Sequence
from typing import Any

COLUMNS = 4


def split_table(summary: dict[str, Any]) -> str:
    """A split's summary as lines of text: images kept and dropped, then the pairs of each class.

    Args:
        summary: as `tfrecords.shards.write_split` returns it.
    """
    rows = [("images seen", summary["images_seen"])]
    rows += [(f"dropped: {reason}", n) for reason, n in summary["images_dropped"].items()]
    rows += [
        ("images kept", summary["images_kept"]),
        ("of these without a label", summary["images_without_label"]),
        ("of these with a mask", summary["masks"]),
        *summary.get("notes", {}).items(),
        ("(image, label) pairs", summary["pairs"]),
        ("shards", len(summary["sha256"])),
        ("bytes", sum(summary["bytes"].values())),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"split {summary['split']} ({summary['domain']} domain)"]
    lines += [f"  {name:<{width}}  {n:>12,}" for name, n in rows]
    return "\n".join([*lines, "pairs per class", class_table(summary["pairs_per_class"])])


def class_table(counts: dict[str, int]) -> str:
    """Counts by class name, several to a line, down the columns."""
    cells = [f"{name:<16} {n:>7,}" for name, n in counts.items()]
    height = -(-len(cells) // COLUMNS)
    rows: list[Sequence[str]] = [cells[row::height] for row in range(height)]
    return "\n".join("  " + "    ".join(row) for row in rows)
