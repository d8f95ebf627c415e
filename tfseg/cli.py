"""How every command of the project starts and how it ends."""

import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from absl import app, flags

from tfseg.errors import InputError

BAD_INPUT = 2
"""Exit status for input that a person can mend."""
INTERRUPTED = 130
"""Exit status after Ctrl-C, as shells have it (128 + SIGINT)."""


def run(main: Callable[[Sequence[str]], int | None], max_words: int = 0) -> NoReturn:
    """Runs a command: parses flags, calls `main`, and turns what goes wrong into one line.

    Misspelt flags, left-over words, `InputError` and errors of the file system end as `error: ...`
    on stderr with status 2, Ctrl-C as `interrupted` with status 130. Anything else is a defect of
    ours and keeps its traceback.

    Args:
        main: takes argv (program, then at most `max_words` words) and returns the exit status;
            None is 0.
        max_words: how many words beside the flags the command takes.
    """

    def guarded(argv: Sequence[str]) -> int | None:
        try:
            _refuse_words(argv, max_words)
            return main(argv)
        except InputError as error:
            _fail(str(error))
        except OSError as error:
            if error.filename is None:
                raise
            _fail(f"{error.strerror}: {error.filename}")

    try:
        app.run(guarded, flags_parser=_parse_flags)
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        sys.exit(INTERRUPTED)


def _refuse_words(argv: Sequence[str], max_words: int) -> None:
    words = argv[1 + max_words :]
    if words:
        raise InputError(
            "left-over words on the command line: "
            + ", ".join(repr(word) for word in words)
            + "; flags are written --name=value"
        )


def _parse_flags(argv: Sequence[str]) -> list[str]:
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        _fail(f"{error} (--help lists the flags of {os.path.basename(argv[0])})")


def _fail(message: str) -> NoReturn:
    print("error: " + " ".join(message.split()), file=sys.stderr)
    sys.exit(BAD_INPUT)
