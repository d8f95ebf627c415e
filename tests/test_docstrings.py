"""Examples in docstrings that take no time and no files are run."""

import doctest
import importlib

import pytest

MODULES = (
    "tfseg.data.labels",
    "tfseg.evaluate",
    "tfseg.evaluation.settings",
    "tfseg.import_caffe",
    "tfseg.inference.crf",
    "tfseg.inference.options",
    "tfseg.predict",
    "tfseg.training.options",
)


@pytest.mark.parametrize("name", MODULES)
def test_examples(name):
    result = doctest.testmod(importlib.import_module(name))
    assert result.attempted and not result.failed
