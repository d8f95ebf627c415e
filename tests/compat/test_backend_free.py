"""Layers, models and losses are written with keras.ops alone, so that they run on every backend."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("tfseg/layers", "tfseg/models", "tfseg/losses")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BACKENDS = {"tensorflow", "tensorflow_addons", "jax", "torch"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_backend_is_imported(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            imported = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in imported:
            assert name.split(".")[0] not in BACKENDS, f"line {node.lineno} imports {name}"
            assert not name.startswith("keras.src"), f"line {node.lineno} imports private {name}"


def test_every_package_was_looked_at():
    for package in PACKAGES:
        assert any(path.is_relative_to(ROOT / package) for path in FILES)
