"""The CRF's flags, the same for `tfseg.evaluate` and `tfseg.predict`."""

import os

from absl import flags

from tfseg.inference.crf import MODES, CrfParameters, crf_parameters

_DEFAULT = CrfParameters()


def define() -> None:
    """Defines the flags; to be called at a command's module level."""
    flags.DEFINE_enum(
        "crf",
        "none",
        MODES,
        "Fully connected CRF: none; official, the authors' unnormalised kernels; or symmetric, the "
        "same with normalised kernels, which keeps thin objects.",
    )
    for name, help_text in (
        ("gaussian_stddev", "CRF: width of the smoothness kernel, pixels."),
        ("gaussian_weight", "CRF: weight of the smoothness kernel."),
        ("bilateral_stddev", "CRF: width of the appearance kernel, pixels."),
        ("color_stddev", "CRF: width of the appearance kernel, grey levels (0 to 255)."),
        ("bilateral_weight", "CRF: weight of the appearance kernel."),
    ):
        flags.DEFINE_float(f"crf_{name}", getattr(_DEFAULT, name), help_text, lower_bound=0.0)
    flags.DEFINE_integer("crf_iterations", _DEFAULT.iterations, "CRF: mean field iterations.", lower_bound=0)
    flags.DEFINE_enum(
        "crf_normalization",
        None,
        ["none", "before", "after", "symmetric"],
        "CRF: kernel normalisation; by default what --crf says.",
    )
    flags.DEFINE_integer(
        "crf_processes",
        os.cpu_count() or 1,
        "CRF: images refined at once, each by a process of its own.",
        lower_bound=1,
    )


def parameters(values: flags.FlagValues) -> CrfParameters | None:
    """Returns what the flags say; None for --crf=none.

    Raises:
        InputError: If a value is not allowed or pydensecrf is not installed.
    """
    names = ("gaussian_stddev", "gaussian_weight", "bilateral_stddev", "color_stddev")
    changes = {name: values[f"crf_{name}"].value for name in (*names, "bilateral_weight", "iterations")}
    if values.crf_normalization is not None:
        changes["normalization"] = values.crf_normalization
    return crf_parameters(values.crf, **changes)
