import ast
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
COMMANDS = {
    "tfseg/figures.py", "tfseg/report.py", "tfseg/experiments/table1.py", "tfseg/experiments/figure4.py"
}  # fmt: skip


def imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""  # `from . import name` has none.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_only_the_commands_of_the_paper_import_it():
    found = set()
    for package in ("tfseg", "tfrecords", "export"):
        for path in (REPOSITORY / package).rglob("*.py"):
            name = path.relative_to(REPOSITORY).as_posix()
            if any(module.startswith("tfseg.paper") for module in imported(path)):
                found.add(name)
    found = {name for name in found if not name.startswith("tfseg/paper/")}
    assert found == COMMANDS
