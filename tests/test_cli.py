"""How commands read their flags, and how they end."""

import dataclasses
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import pytest
from absl import flags as absl_flags

from tfseg import cli
from tfseg.config import ModelConfig
from tfseg.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[1]


@dataclasses.dataclass(frozen=True)
class Shape:
    """Numbers of a network.

    Attributes:
        width: Channels of each
            layer.
        kind: Which one.
        sizes: No flag can give these.
    """

    width: int = 4
    kind: Literal["plain", "wide"] = "plain"
    sizes: tuple[int, ...] = (1, 2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
    inner_rate: float = cli.flag("Of the inner part.", default=0.5, lower=0.0, upper=1.0, advanced=True)
    hidden: int = cli.flag("No flag of this command.", default=3)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    words: tuple[str, ...] = cli.words("FILE", at_most=1)
    needed: str = cli.flag("Must be given.")
    count: int = cli.flag("How often.", default=1, lower=1)
    fast: bool = cli.flag("Whether to hurry.", default=True)
    folder: Path | None = cli.flag("Where.", default=None, exists="folder")
    names: tuple[str, ...] = cli.flag("Several.", default=("a", "b"), separator=",")
    label: tuple[str, ...] = cli.flag("Repeated.", default=())
    inner: Inner = cli.group(Inner, skip=("hidden",), inner_rate=0.25)
    shape: dict = cli.overrides(Shape, "Overrides. ", prefix="shape_")


def work(options):
    match options.needed:
        case "input":
            raise InputError("file.json: record 3:\n  is bad")
        case "file":
            Path("/nonexistent/file.txt").read_bytes()
        case "defect":
            raise RuntimeError("our own")
        case "interrupt":
            raise KeyboardInterrupt
        case "status":
            return options.count
    print("ran", *options.words)


def run(*argv):
    return cli.run(
        "tests.command", "Does things.\n\nAnd more.", Options, work, argv, ("--needed=x", "--needed=y")
    )


def test_a_good_call(capsys):
    assert run("--needed=x") == 0
    assert run("--needed=x", "word") == 0
    assert run("--needed=status", "--count=7") == 7
    assert capsys.readouterr() == ("ran\nran word\n", "")


def test_flags_become_the_fields_of_the_dataclass(tmp_path):
    options = cli.parse(Options, ["--needed=x"])
    assert options == Options(needed="x", inner=Inner(inner_rate=0.25))
    argv = ["--needed=x", "--nofast", f"--folder={tmp_path}", "--names=c,d", "--label=1", "--label=2"]
    options = cli.parse(Options, [*argv, "--inner_rate=1", "--shape_kind=wide"])
    assert options == Options(
        needed="x",
        fast=False,
        folder=tmp_path,
        names=("c", "d"),
        label=("1", "2"),
        inner=Inner(inner_rate=1.0),
        shape={"kind": "wide"},
    )


def test_flags_from_nested_files(tmp_path):
    (tmp_path / "outer.cfg").write_text(f"# why\n--flagfile={tmp_path / 'inner.cfg'}\n--count=4\n")
    (tmp_path / "inner.cfg").write_text("--needed=status\n--count=3\n")
    assert run(f"--flagfile={tmp_path / 'outer.cfg'}") == 4


def test_options_are_written_as_a_flagfile_that_gives_them_again(tmp_path):
    options = Options(
        needed="x", fast=False, names=(), label=("1", "2"), inner=Inner(inner_rate=0.1), shape={"width": 5}
    )
    (tmp_path / "flags.cfg").write_text("\n".join(cli.flag_lines(options)))
    assert cli.parse(Options, [f"--flagfile={tmp_path / 'flags.cfg'}"]) == options
    line = cli.command_line("tests.command", options)
    assert line == (
        "python -m tests.command --needed=x --nofast --names= --label=1 --label=2 --inner_rate=0.1 "
        "--shape_width=5"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--needed=x", "--cuont=2"], "Unknown command line flag 'cuont'. Did you mean: count ?"),
        (["--needed=x", "--count=two"], "flag --count=two"),
        (["--needed=x", "--count=0"], "flag --count=0"),
        (["--needed=x", "--hidden=4"], "Unknown command line flag 'hidden'"),
        (["--needed=x", "--inner_rate=2"], "flag --inner_rate=2"),
        (["--needed=x", "--shape_kind=tall"], "value should be one of <plain|wide>"),
        (["--count=2"], "--needed must have a value"),
        (["--flagfile=/nonexistent/flags.cfg"], "/nonexistent/flags.cfg"),
        (["--needed=x", "one", "two"], "left-over words on the command line: 'two'"),
        (["--needed=x", "--folder=/nonexistent"], "--folder=/nonexistent: there is no such folder"),
        (["--needed=input"], "file.json: record 3: is bad"),
        (["--needed=file"], "/nonexistent/file.txt: No such file or directory"),
    ],
)
def test_what_a_person_can_mend_is_one_line(capsys, arguments, message):
    assert run(*arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ") and err.count("\n") == 1
    assert message in err


def test_our_own_defects_keep_their_traceback():
    with pytest.raises(RuntimeError, match="our own"):
        run("--needed=defect")


def test_ctrl_c_is_one_line(capsys):
    assert run("--needed=interrupt") == 130
    assert capsys.readouterr().err.strip() == "interrupted"


def test_ctrl_c_of_a_process(tmp_path):
    path = tmp_path / "command.py"
    path.write_text(
        "import dataclasses, sys, time\nfrom tfseg import cli\n"
        "@dataclasses.dataclass\nclass Options: pass\n"
        "def work(options):\n    print('ready', flush=True)\n    time.sleep(60)\n"
        "sys.exit(cli.run('command', 'Sleeps.', Options, work))\n"
    )
    process = subprocess.Popen(
        [sys.executable, path],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err.strip() == "interrupted"


def test_help_goes_from_required_to_advanced(capsys):
    assert run("--help") == 0
    out = capsys.readouterr().out
    order = ["Does things.", "python -m tests.command --needed=y", "required:", "--needed=TEXT", "\nflags:"]
    order += [
        "--count=N",
        "How often. [1]",
        "--[no]fast",
        "--names=WORD,WORD...",
        "Several. [a,b]",
        "advanced:",
    ]
    order += [
        "--inner_rate=X",
        "[0.25]",
        "--shape_width=N",
        "Overrides. Channels of each layer.",
        "plain|wide",
    ]
    positions = [out.find(text) for text in order]
    assert -1 not in positions and positions == sorted(positions), dict(zip(order, positions, strict=True))
    assert "And more." not in out and "shape_sizes" not in out


def test_every_option_of_a_network_is_a_flag():
    from tfseg.training.options import TrainingOptions

    own = {field.name: field for field in dataclasses.fields(ModelConfig)}
    del own["num_labels"]  # Of the label map.
    argv = ["--data_dir=.", "--model_dir=m", "--stage=joint", "--preset=tiny"]
    plain = cli.parse(TrainingOptions, argv).model_config(5)
    changed = {"image_size": 64, "gating": "concat", "joint_gradient": False, "classifier_dropout": 0.25}
    flags = [f"--{name}={value}" for name, value in changed.items()]
    assert cli.parse(TrainingOptions, [*argv, *flags]).model_config(5) == plain.replace(**changed)
    given = cli.given_values(cli.parse(TrainingOptions, argv))
    assert own.keys() - given.keys() == {"encoder_blocks", "bgr_mean"}  # Lists of numbers are no flags.


COMMANDS = (
    "tfseg.train",
    "tfseg.adapt",
    "tfseg.evaluate",
    "tfseg.predict",
    "tfseg.import_caffe",
    "export.saved_model",
    "export.verify",
    "export.serve_files",
    "export.batch_predict",
    "tfrecords.build_coco",
    "tfrecords.build_voc",
    "tfrecords.build_synthetic",
    "tfrecords.verify",
    "tfseg.experiments.table1",
    "tfseg.experiments.figure4",
    "tfseg.figures",
    "tfseg.report",
)


def test_all_commands_live_in_one_process_and_answer_a_typo(capsys):
    before = set(absl_flags.FLAGS)
    for name in COMMANDS:
        command = importlib.import_module(name)
        assert command.main(["--no_such_flag=1"]) == 2
        said = f"Unknown command line flag 'no_such_flag' (--help lists the flags of {name})"
        assert said in capsys.readouterr().err
        assert command.main(["--help"]) == 0
        out = capsys.readouterr().out
        assert out.count(f"\n  python -m {name} ") == 2 and "\nflags:" in out
    assert set(absl_flags.FLAGS) == before


def test_a_typo_is_answered_before_tensorflow_is_imported():
    names = list(COMMANDS)
    code = "import importlib, sys\n"
    code += f"for name in {names!r}: importlib.import_module(name).main(['--no_such_flag=1'])\n"
    code += "print([m for m in ('tensorflow', 'keras', 'matplotlib') if m in sys.modules])"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=300, check=True)
    assert done.stderr.count("error: ") == len(names)
    assert done.stdout == "[]\n"


def test_control_characters_in_a_message_are_spelt_out(capsys):
    def fail(options):
        raise InputError("a\x1b[31m\x85b\u2028c\nd\u202fe\u3000" + "f" * 10_000)

    nothing = dataclasses.make_dataclass("Nothing", [], frozen=True)
    assert cli.run("command", "Text.", nothing, fail, []) == 2
    line = capsys.readouterr().err
    assert line.startswith(r"error: a\x1b[31m\x85b\u2028c d" + "\u202fe\u3000f") and len(line) < 9000


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "1e999"])
def test_numbers_are_finite(value):
    @dataclasses.dataclass(frozen=True)
    class Rate:
        rate: float = cli.flag("A rate.", default=0.5)

    with pytest.raises(InputError, match=r"--rate=-?(nan|inf): must be a finite number"):
        cli.parse(Rate, [f"--rate={value}"])
