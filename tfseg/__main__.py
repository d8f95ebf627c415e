"""The console script `tfseg`, also `python -m tfseg`: calls a command by its short name.

Nothing but the command that is called is imported.
"""

import difflib
import importlib
import sys
import textwrap
from collections.abc import Sequence

from tfseg import __version__, stopping
from tfseg.cli import BAD_INPUT, show
from tfseg.commands import COMMANDS, GROUPS, find
from tfseg.shipped import INSTALLED, recipes


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
    for title, group in GROUPS.items():
        parts.append(f"\n{title}:\n{_lines(list(group))}")
    parts.append("\ntfseg COMMAND --help lists the flags of a command.")
    known = textwrap.fill(", ".join(recipes()), 90, initial_indent="  ", subsequent_indent="  ")
    parts.append(f"--flagfile=tfseg:official/joint.cfg takes a recipe that ships; their folders are\n{known}")
    return "\n".join(parts)


def _lines(names: Sequence[str]) -> str:
    texts = {name: text for group in GROUPS.values() for name, (_, text) in group.items()}
    return "\n".join(f"  {name:16} {texts[name]}" for name in names)


def _unknown(words: Sequence[str]) -> int:
    name = " ".join(words[:2]) if words[0] == "build" else words[0]
    tried = (" ".join(words[:2]), words[0])
    near = [one for text in tried for one in difflib.get_close_matches(text, COMMANDS, n=1, cutoff=0.5)]
    hint = f"; did you mean {near[0]}?" if near else ""
    print(f"error: there is no command {name!r}{hint} (tfseg --help lists them)", file=sys.stderr)
    return BAD_INPUT


if __name__ == "__main__":
    sys.exit(main())
