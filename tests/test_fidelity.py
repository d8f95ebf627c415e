"""docs/FIDELITY.md: a row for each line of SPEC 12, and no test or flag in it that does not exist."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

import pytest
from in_process import call
from test_cli import COMMANDS

REPOSITORY = Path(__file__).resolve().parents[1]
TEXT = (REPOSITORY / "docs/FIDELITY.md").read_text()
COLUMNS = 8
UNSETTLED = "cannot be settled, because"
REFERENCE = re.compile(r"(tests/[\w/]+\.py)::(\w+)")


def _rows(heading: str) -> list[list[str]]:
    """Cells of the first table below a heading, without its two header lines."""
    lines = TEXT.split(f"\n{heading}\n", 1)[1].splitlines()
    start = next(i for i, line in enumerate(lines) if line.startswith("|"))
    table = []
    for line in lines[start:]:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table[2:]


@cache
def _functions(path: str) -> frozenset[str]:
    file = REPOSITORY / path
    nodes = ast.parse(file.read_text()).body if file.is_file() else []
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef))


@cache
def _flags() -> frozenset[str]:
    """Names of all flags, as the commands' `--help` lists them."""
    texts = [call(importlib.import_module(name).main, "--help").stdout for name in COMMANDS]
    return frozenset(name for text in texts for name in re.findall(r"^  --(?:\[no\])?(\w+)", text, re.M))


def test_all_27_lines_are_there():
    rows = _rows("## SPEC 12, line by line")
    assert [row[0] for row in rows] == [str(number) for number in range(1, 28)]
    assert {len(row) for row in rows} == {COLUMNS}
    assert all(cell for row in rows for cell in row)


@pytest.mark.parametrize("row", _rows("## SPEC 12, line by line"), ids=lambda row: row[0])
def test_each_line_has_a_test_or_says_why_not(row):
    assert REFERENCE.search(row[-1]) or UNSETTLED in row[-1]


@pytest.mark.parametrize("row", _rows("## Open questions (SPEC 15)"), ids=lambda row: row[0])
def test_each_open_question_says_why(row):
    assert row[1].startswith(UNSETTLED)


@pytest.mark.parametrize("reference", sorted(set(REFERENCE.findall(TEXT))), ids="::".join)
def test_named_tests_exist(reference):
    path, name = reference
    assert name.startswith("test_") and name in _functions(path)


def test_named_flags_exist():
    named = set(re.findall(r"`--(\w+)", TEXT)) - {"crf_"}
    unknown = {name for name in named if not {name, name.removeprefix("no")} & _flags()}
    assert len(named) > 20 and not unknown


def test_named_files_exist():
    named = re.findall(r"`((?:configs|tests)/[\w/.]+)`", TEXT)
    assert named and [path for path in named if not (REPOSITORY / path).exists()] == []
