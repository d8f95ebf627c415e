"""What the packages import is what pyproject.toml declares and requirements.txt pins."""

import ast
import itertools
import re
import sys
import tomllib
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
OWN = ("tfseg", "tfrecords", "export")
# Where the name on PyPI is not the name of the module.
DISTRIBUTIONS = {"absl": "absl-py", "google": "protobuf", "PIL": "pillow", "pydensecrf": "pydensecrf2"}
DISTRIBUTIONS |= {"tensorflow_serving": "tensorflow-serving-api", "grpc": "grpcio"}
# Imported only by code that asks for the backend of that name, which the user installed.
BACKENDS = {"jax"}


def _imported():
    found = set()
    for package in OWN:
        for path in (REPOSITORY / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Import):
                    found |= {alias.name.split(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and not node.level:
                    found.add(node.module.split(".")[0])
    foreign = found - set(sys.stdlib_module_names) - {*OWN, *BACKENDS}
    return {DISTRIBUTIONS.get(name, name.replace("_", "-")) for name in foreign}


def _names(requirements):
    return {re.split(r"[\[<>=!~ ;]", line.strip())[0] for line in requirements} - {""}


def test_every_import_is_declared_and_pinned():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    declared = _names(project["dependencies"])
    optional = _names(itertools.chain(*project["optional-dependencies"].values()))
    # Beam wants an older protobuf and Pillow than the main environment has.
    files = ("requirements.txt", "requirements-beam.txt")
    lines = [line for name in files for line in (REPOSITORY / name).read_text().splitlines()]
    pinned = _names(line for line in lines if line and not line.startswith("#"))
    imported = _imported()
    assert {"tensorflow", "keras", "h5py"} <= imported
    assert imported <= declared | optional
    assert imported <= pinned
