"""Imports run one way: down the floors of the house, and in no circle."""

import ast
import graphlib
from pathlib import Path

REPOSITORY = Path(__file__).parents[1]
FILES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for package in ("tfseg", "tfrecords", "export")
    for path in (REPOSITORY / package).rglob("*.py")
}
# From the ground up; a module without a floor (`tfseg.files`) is below all of them.
FLOORS = (
    ("tfseg.layers", "tfseg.losses"),
    ("tfseg.models",),
    ("tfseg.data",),
    ("tfseg.model_dir",),
    ("tfseg.inference", "tfseg.importers"),
    ("tfseg.evaluation", "tfseg.web"),
    ("tfseg.training",),
    ("tfseg.evaluate", "tfseg.predict", "tfseg.train", "tfseg.adapt", "tfseg.import_caffe", "tfseg.page"),
    ("tfseg.paper",),
    ("tfseg.experiments", "tfseg.figures", "tfseg.report"),
    ("tfrecords", "export"),
)
PAPER = {"tfseg.figures", "tfseg.report", "tfseg.experiments.table1", "tfseg.experiments.figure4"}


def imported(name):
    """The project's modules that a module imports, at its top or within a function, but not for types."""
    path = FILES[name]
    tree = ast.parse(path.read_text())
    for_types = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in FILES)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                whole = f"{base}.{alias.name}"
                yield from [module for module in (whole, base) if module in FILES][:1]


GRAPH = {name: set(imported(name)) - {name} for name in FILES}


def floor(name):
    for number, packages in enumerate(FLOORS):
        if any(name == package or name.startswith(f"{package}.") for package in packages):
            return number
    return -1


def test_no_circle():
    list(graphlib.TopologicalSorter(GRAPH).static_order())  # Raises CycleError.


def test_imports_run_down():
    up = {
        name: above
        for name, modules in GRAPH.items()
        if (above := {module for module in modules if floor(module) > floor(name) > -1})
    }
    assert not up
    ground = {name for name in FILES if floor(name) == -1 and any(floor(m) > -1 for m in GRAPH[name])}
    assert ground == {"tfseg"}  # `tfseg.Segmenter`, when it is asked for.


def test_only_the_commands_of_the_paper_import_it():
    found = {name for name, modules in GRAPH.items() if any(m.startswith("tfseg.paper") for m in modules)}
    assert {name for name in found if not name.startswith("tfseg.paper")} == PAPER


def test_networks_need_no_tensorflow():
    """They are written in `keras.ops`, for any backend."""
    parts = ("tfseg.layers", "tfseg.models", "tfseg.losses")
    for name in (name for name in FILES if name.startswith(parts)):
        words = ast.walk(ast.parse(FILES[name].read_text()))
        names = {alias.name for node in words if isinstance(node, ast.Import) for alias in node.names}
        assert "tensorflow" not in names, name
