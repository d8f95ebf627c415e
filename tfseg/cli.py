"""How every command of the project reads its flags, and how it ends.

A command is a frozen dataclass, each field of which is a flag, and a function that takes it:

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Options:
        data_dir: Path = cli.flag("Folder of the records.", exists="folder")  # no default: required
        steps: int = cli.flag("Updates of the stage.", default=15000, lower=1)
        dtype: Literal["float32", "bfloat16"] = cli.flag("Precision.", default="float32", advanced=True)

    def main(argv: Sequence[str] | None = None) -> int:
        return cli.run("tfseg.example", __doc__, Options, run, argv, examples=("--data_dir=records",))

Flags are parsed and paths are checked before `run` is called, so that it can import TensorFlow itself and
a misspelt flag is answered at once. `main(["--data_dir=records"])` calls the command from Python.
"""

import contextlib
import dataclasses
import functools
import inspect
import math
import os
import re
import shlex
import shutil
import sys
import textwrap
import threading
import types
import typing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TextIO

from absl import flags

from tfseg import stopping
from tfseg.commands import called
from tfseg.console import quiet
from tfseg.errors import InputError, WorkerLostError
from tfseg.files import refusal
from tfseg.shipped import locate

if TYPE_CHECKING:
    from tqdm import tqdm

BAD_INPUT = 2
"""Exit status for input that a person can mend."""
_LONGEST_LINE = 8000  # Of an error, characters.


def flag(
    help: str,
    *,
    default: Any = dataclasses.MISSING,
    advanced: bool = False,
    lower: float | None = None,
    upper: float | None = None,
    choices: Sequence[str] | None = None,
    exists: Literal["file", "folder"] | None = None,
    separator: str | None = None,
) -> Any:
    """Declares a field of an options dataclass as the flag of its name.

    The field's type is the flag's: `str`, `Path`, `int`, `float`, `bool`, a `Literal` of words, each with
    `| None`, or `tuple[str, ...]`. A field `from_` is the flag `--from`.

    Args:
        help: One sentence for `--help`.
        default: Its default; a flag without one is required.
        advanced: Whether `--help` lists it last.
        lower: Smallest number that is allowed.
        upper: Largest number that is allowed.
        choices: Words that are allowed, where they are no `Literal`.
        exists: Whether the path must be there, and as what; `tfseg:NAME` is a file that ships.
        separator: Of the words of a `tuple[str, ...]`; None for a flag that may be repeated.
    """
    own = {"help": help, "advanced": advanced, "lower": lower, "upper": upper, "choices": choices}
    return dataclasses.field(
        default=default, metadata={"flag": own | {"exists": exists, "separator": separator}}
    )


def words(name: str, at_least: int = 0, at_most: int = sys.maxsize) -> Any:
    """Declares a `tuple[str, ...]` that takes the words beside the flags; `--help` calls them `name`."""
    metadata = {"words": name, "at_least": at_least, "at_most": at_most}
    return dataclasses.field(default=(), metadata=metadata)


def group(of: type, skip: Sequence[str] = (), **defaults: Any) -> Any:
    """Declares a field that is an options dataclass itself; its fields are flags of the command.

    Args:
        of: The dataclass.
        skip: Fields that are no flags of this command.
        **defaults: Other defaults of its fields, for this command alone; what a skipped field holds.
    """
    metadata = {"group": of, "skip": tuple(skip), "defaults": defaults}
    return dataclasses.field(default_factory=functools.partial(of, **defaults), metadata=metadata)


def overrides(of: type, help: str, prefix: str = "", skip: Sequence[str] = ()) -> Any:
    """Declares a `dict[str, Any]` of the fields of a dataclass that were given as flags.

    Each field that is a number, a bool or a `Literal` is a flag, described as in the docstring.

    Args:
        of: The dataclass.
        help: Stands before each description.
        prefix: Of the flags' names.
        skip: Fields that are no flags.
    """
    metadata = {"overrides": of, "help": help, "prefix": prefix, "skip": tuple(skip)}
    return dataclasses.field(default_factory=dict, metadata=metadata)


def run(
    command: str,
    doc: str,
    options_class: type,
    function: Callable[[Any], int | None],
    argv: Sequence[str] | None = None,
    examples: Sequence[str] = (),
) -> int:
    """Runs a command: parses its flags, calls `function`, and turns what goes wrong into one line.

    Misspelt flags, left-over words, `InputError` and files that the system refuses end as `error: ...`
    on stderr with status 2, and the notes that were added to the error; `WorkerLostError` with status 75;
    Ctrl-C as `interrupted` with status 130, SIGTERM as `terminated` with 143. Anything else is a defect of
    ours and keeps its traceback.

    Args:
        command: Name of its module, as in `tfseg.train`.
        doc: Its first paragraph is shown by `--help`.
        options_class: Frozen dataclass of its flags.
        function: Takes the options and returns the exit status; None is 0.
        argv: Flags and words; None for those of the process.
        examples: Flags of calls that `--help` shows.

    Returns:
        The exit status.
    """
    is_process = argv is None
    argv = sys.argv[1:] if is_process else [str(word) for word in argv]
    before = argv[: argv.index("--")] if "--" in argv else argv
    if not {"--help", "-help", "-h", "--helpfull"}.isdisjoint(before):
        return show(help_text(command, doc, options_class, examples))
    try:
        with stopping.at_once():
            options, verbose = _parse(options_class, argv, command)
            check_paths(options)
            with quiet(verbose):
                return function(options) or 0
    except InputError as error:
        return _fail(error, str(error))
    except WorkerLostError as error:
        return _fail(error, str(error), error.STATUS)
    except Exception as error:
        refused = refusal(error)
        if refused is None:
            raise
        return _fail(error, refused)
    except KeyboardInterrupt as stopped:
        stopping.tell(stopped)
        return stopping.status(stopped)
    finally:
        if is_process:
            stopping.end_silently()  # TensorFlow takes a while to leave.


def show(text: str) -> int:
    """Prints help and returns 0, also where what reads it has seen enough, such as `head`."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes again at its end.
    return 0


def parse(options_class: type, argv: Sequence[str], command: str = "") -> Any:
    """Returns the options that flags and words give; `--flagfile=FILE` reads flags from a file.

    Raises:
        InputError: If a flag is unknown, missing or out of range, or a word is left over.
    """
    return _parse(options_class, argv, command)[0]


def _parse(options_class: type, argv: Sequence[str], command: str) -> tuple[Any, bool]:
    """Returns the options, and whether `--verbose` was given."""
    values = _FlagValues()
    for one in _declared(options_class):
        one.define(values)
    flags.DEFINE_boolean("verbose", False, "Shows all of TensorFlow's log.", flag_values=values)
    try:
        left = values([command, *argv])[1:]
    except flags.Error as error:
        reason = str(error).removeprefix("ERROR:: ")  # absl's own, for a flagfile.
        raise InputError(f"{reason} (--help lists the flags of {command or 'the command'})") from error
    return _build(options_class, values, left), values.verbose


class _FlagValues(flags.FlagValues):
    """Flags of one command."""

    def _get_flag_file_lines(self, filename: str, parsed_file_stack: list[str] | None = None) -> list[str]:
        # absl comes here for each flagfile, nested ones included; it has no public place for this.
        return super()._get_flag_file_lines(locate(filename), parsed_file_stack)


def expand_flagfiles(words: Sequence[str]) -> list[str]:
    """Returns flags with the content of flagfiles, nested ones included, in the place of `--flagfile=FILE`.

    Raises:
        InputError: If a flagfile cannot be read.
    """
    try:
        return _FlagValues().read_flags_from_files(list(words), force_gnu=True)
    except flags.Error as error:
        raise InputError(str(error).removeprefix("ERROR:: ")) from error


def check_paths(options: Any) -> None:
    """Refuses options that name a file or a folder that must be there and is not.

    Raises:
        InputError: The first of them.
    """
    values = given_values(options)
    for one in _declared(type(options)):
        one.check_path(values[one.name])


def given_values(options: Any, skip: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the value of each flag by its name, ready for JSON; without the fields of `skip`."""
    found: dict[str, Any] = {}
    for field in _fields(type(options), skip):
        value = getattr(options, field.name)
        if "group" in field.metadata:
            found |= given_values(value, field.metadata["skip"])
        elif "overrides" in field.metadata:
            prefix = field.metadata["prefix"]
            found |= {prefix + name: value.get(name) for name, _, _ in _overridable(field)}
        elif "flag" in field.metadata:
            found[_flag_name(field)] = str(value) if isinstance(value, Path) else value
    return found


def flag_lines(options: Any, only_changed: bool = False) -> list[str]:
    """Returns the options as lines of a flagfile, `--name=value`; flags that are None are left out.

    Args:
        options: The options.
        only_changed: Whether flags at their default are left out, too.
    """
    defaults = {one.name: one.default for one in _declared(type(options))}
    separators = {one.name: one.separator for one in _declared(type(options))}
    lines: list[str] = []
    for name, value in given_values(options).items():
        if value is None or (only_changed and value == defaults[name]):
            continue
        if isinstance(value, bool):
            lines.append(f"--{name}" if value else f"--no{name}")
        elif isinstance(value, (tuple, list)):
            repeated = value if separators[name] is None else [separators[name].join(value)]
            lines += [f"--{name}={word}" for word in repeated]
        else:
            lines.append(f"--{name}={value}")
    return lines


def command_line(command: str, options: Any) -> str:
    """Returns the call of a command as a person types it, without flags at their default."""
    left = [
        word
        for field in dataclasses.fields(options)
        if "words" in field.metadata
        for word in getattr(options, field.name)
    ]
    return shlex.join([*called(command).split(), *flag_lines(options, only_changed=True), *left])


def help_text(command: str, doc: str, options_class: type, examples: Sequence[str] = ()) -> str:
    """Returns what `--help` prints: required flags first, then common ones, then advanced ones."""
    declared = list(_declared(options_class))
    taken = "".join(
        f" {field.metadata['words']}"
        for field in dataclasses.fields(options_class)
        if "words" in field.metadata
    )
    parts = [inspect.cleandoc(doc).split("\n\n")[0], f"\nusage: {called(command)} --FLAG=VALUE ...{taken}"]
    parts += [f"  {called(command)} {example}" for example in examples]
    for title, chosen in (
        ("required", [one for one in declared if one.required]),
        ("flags", [one for one in declared if not one.required and not one.advanced]),
        ("advanced", [one for one in declared if not one.required and one.advanced]),
    ):
        if chosen:
            parts += [f"\n{title}:", *(one.describe() for one in chosen)]
    parts.append("\n--flagfile=FILE reads flags from a file, one a line; tfseg:NAME is one that ships.")
    return "\n".join([*parts, "--verbose shows all of TensorFlow's log."])


@dataclasses.dataclass(frozen=True)
class _Flag:
    """A flag of a command, from whatever declares it."""

    name: str
    type: Any
    default: Any
    help: str
    required: bool = False
    advanced: bool = False
    lower: float | None = None
    upper: float | None = None
    choices: Sequence[str] | None = None
    exists: str | None = None
    separator: str | None = None

    def define(self, values: flags.FlagValues) -> None:
        """Defines it for absl, which parses."""
        own = {"flag_values": values, "required": self.required}
        default = None if self.required else self.default
        if self.choices is not None:
            flags.DEFINE_enum(self.name, default, list(self.choices), self.help, **own)
        elif self.type is bool:
            flags.DEFINE_boolean(self.name, default, self.help, **own)
        elif self.type in (int, float):
            define = flags.DEFINE_integer if self.type is int else flags.DEFINE_float
            define(self.name, default, self.help, self.lower, self.upper, **own)
        elif self.type is tuple:
            define = flags.DEFINE_multi_string if self.separator is None else flags.DEFINE_list
            define(self.name, default and list(default), self.help, **own)
        else:
            flags.DEFINE_string(self.name, None if default is None else str(default), self.help, **own)

    def convert(self, value: Any) -> Any:
        """Brings what absl parsed to the field's type."""
        if self.exists and value is not None:
            value = locate(value)
        if self.type is float and value is not None and not math.isfinite(value):
            raise InputError(f"--{self.name}={value}: must be a finite number")
        if value is None or self.type not in (tuple, Path):
            return value
        return self.type(value)

    def check_path(self, value: str | None) -> None:
        """Refuses a path that must be there and is not."""
        if self.exists is None or value is None:
            return
        there = os.path.isdir(value) if self.exists == "folder" else os.path.exists(value)
        if not there:
            raise InputError(f"--{self.name}={value}: there is no such {self.exists}")

    def describe(self) -> str:
        """Returns its lines of `--help`."""
        head = f"  --{self.name}={self._kind()}"
        if self.type is bool:
            head = f"  --[no]{self.name}"
        default = None if self.required or self.default in (None, ()) else self.default
        if isinstance(default, tuple):
            default = (self.separator or " ").join(default)
        text = self.help + ("" if default is None else f" [{default}]")
        width = min(shutil.get_terminal_size().columns, 110) - 6
        return "\n".join(
            [head, *textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)]
        )

    def _kind(self) -> str:
        if self.choices is not None:
            return "|".join(self.choices)
        if self.type is tuple:
            return "WORD" if self.separator is None else f"WORD{self.separator}WORD..."
        return {Path: "PATH", int: "N", float: "X"}.get(self.type, "TEXT")


def _fields(options_class: type, skip: Sequence[str]) -> list[dataclasses.Field]:
    return [field for field in dataclasses.fields(options_class) if field.name not in skip]


def _declared(options_class: type, skip: Sequence[str] = ()) -> Iterator[_Flag]:
    hints = typing.get_type_hints(options_class)
    for field in _fields(options_class, skip):
        if "group" in field.metadata:
            for one in _declared(field.metadata["group"], field.metadata["skip"]):
                default = field.metadata["defaults"].get(one.name, one.default)
                yield dataclasses.replace(one, default=default)
        elif "overrides" in field.metadata:
            prefix, help_prefix = field.metadata["prefix"], field.metadata["help"]
            for name, hint, text in _overridable(field):
                kind, choices = _type_of(hint)
                yield _Flag(prefix + name, kind, None, help_prefix + text, advanced=True, choices=choices)
        elif "flag" in field.metadata:
            own = dict(field.metadata["flag"])
            kind, choices = _type_of(hints[field.name])
            own["choices"] = own["choices"] or choices
            required = field.default is dataclasses.MISSING
            yield _Flag(_flag_name(field), kind, field.default, required=required, **own)


def _flag_name(field: dataclasses.Field) -> str:
    return field.name.removesuffix("_")  # Python's own words cannot name a field.


def _overridable(field: dataclasses.Field) -> Iterator[tuple[str, Any, str]]:
    """Yields name, type and description of the fields that `overrides` makes flags of."""
    of, skip = field.metadata["overrides"], field.metadata["skip"]
    hints, doc = typing.get_type_hints(of), inspect.getdoc(of) or ""
    for one in dataclasses.fields(of):
        kind, choices = _type_of(hints[one.name])
        if one.name not in skip and (choices or kind in (bool, int, float)):
            entry = re.search(rf"^ +{one.name}: (.*(?:\n {{8,}}.*)*)", doc, re.MULTILINE)
            yield one.name, hints[one.name], " ".join(entry[1].split()) if entry else ""


def _type_of(hint: Any) -> tuple[Any, Sequence[str] | None]:
    """Returns the plain type of an annotation and the words that it allows."""
    if isinstance(hint, types.UnionType) or typing.get_origin(hint) is typing.Union:
        (hint,) = (part for part in typing.get_args(hint) if part is not type(None))
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint)
    return typing.get_origin(hint) or hint, None


def _build(
    options_class: type,
    values: flags.FlagValues,
    left: Sequence[str],
    skip: Sequence[str] = (),
    held: typing.Mapping[str, Any] = types.MappingProxyType({}),
) -> Any:
    """Fills an options dataclass from parsed flags, the words that are left, and what skipped fields hold."""
    declared = {one.name: one for one in _declared(options_class, skip)}
    fields: dict[str, Any] = dict(held)
    takes_words = False
    for field in _fields(options_class, skip):
        if "group" in field.metadata:
            skipped, defaults = field.metadata["skip"], field.metadata["defaults"]
            held = {name: defaults[name] for name in skipped if name in defaults}
            fields[field.name] = _build(field.metadata["group"], values, (), skipped, held)
        elif "overrides" in field.metadata:
            names = [(name, field.metadata["prefix"] + name) for name, _, _ in _overridable(field)]
            changed = {name: values[full].value for name, full in names}
            fields[field.name] = {name: value for name, value in changed.items() if value is not None}
        elif "words" in field.metadata:
            takes_words = True
            fields[field.name] = _check_words(field.metadata, left)
        elif "flag" in field.metadata:
            name = _flag_name(field)
            fields[field.name] = declared[name].convert(values[name].value)
    if left and not takes_words:
        _check_words({"words": "", "at_least": 0, "at_most": 0}, left)
    return options_class(**fields)


def _check_words(wanted: typing.Mapping[str, Any], left: Sequence[str]) -> tuple[str, ...]:
    surplus = left[wanted["at_most"] :]
    if surplus:
        raise InputError(
            "left-over words on the command line: "
            + ", ".join(repr(word) for word in surplus)
            + "; flags are written --name=value"
        )
    if len(left) < wanted["at_least"]:
        raise InputError(f"{wanted['words']} is wanted after the flags")
    return tuple(left)


def _fail(error: Exception, message: str, status: int = BAD_INPUT) -> int:
    message = "; ".join([message, *getattr(error, "__notes__", ())])
    # On one line; other spaces than these may be parts of names, other control characters steer a terminal.
    line = re.sub(r"[ \t\r\n\f\v]+", " ", message.strip())
    line = re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda match: repr(match[0])[1:-1], line)
    print(f"error: {line if len(line) <= _LONGEST_LINE else line[:_LONGEST_LINE] + '...'}", file=sys.stderr)
    return status


@contextlib.contextmanager
def working(at: str) -> Iterator[None]:
    """Says on stderr what is under way while the block runs, if that takes over two seconds.

    ```python
    with cli.working("loading the model"):
        segmenter = Segmenter.load(path)
    ```

    Args:
        at: What is under way.
    """
    timer = threading.Timer(2.0, lambda: print(f"{at} ...", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def progress_bar(desc: str, unit: str, total: int | None = None, **options: Any) -> "tqdm":
    """Returns a progress bar on stderr.

    Where that is no terminal it writes a plain line every ten seconds, and none in the first two.

    Args:
        desc: What is under way.
        unit: What is counted.
        total: How many there are; None where that is not known yet.
        **options: Of `tqdm`.
    """
    from tqdm import tqdm

    if sys.stderr.isatty():
        return tqdm(desc=desc, unit=unit, total=total, dynamic_ncols=True, mininterval=0.2, **options)

    class Lines(tqdm):
        @classmethod
        def external_write_mode(cls, **_: Any) -> contextlib.AbstractContextManager[None]:
            return contextlib.nullcontext()  # There is no bar to be drawn again.

        @staticmethod
        def status_printer(file: TextIO) -> Callable[[str], None]:
            return lambda text: text and print(text, file=file, flush=True)

        def close(self) -> None:
            if not self.disable and self._time() - self.start_t >= self.delay:
                self.display()
            self.delay = float("inf")  # tqdm would end its line, which is ended.
            super().close()

    return Lines(desc=desc, unit=unit, total=total, delay=2.0, mininterval=10.0, maxinterval=20.0, **options)


def format_seconds(seconds: float | None) -> str:
    """Writes a duration for people: `48 s`, `12.5 min`, `3.2 h`; `unknown` for None."""
    if seconds is None:
        return "unknown"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
