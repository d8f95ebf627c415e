"""Fully connected CRF on (background, foreground) of each label (SPEC 7, step 6)."""

import dataclasses
from typing import Any, Literal

import numpy as np

from tfseg.errors import InputError

Normalization = Literal["none", "before", "after", "symmetric"]
MODES = ("none", "official", "symmetric")
# Smaller probabilities would make an infinite energy.
_SMALLEST = 1e-7


@dataclasses.dataclass(frozen=True)
class CrfParameters:
    """Energy of the CRF; the defaults are those of the authors' script.

    ```python
    >>> CrfParameters(iterations=5).normalization
    'none'

    ```

    Attributes:
        gaussian_stddev: Of the smoothness kernel, in pixels, both axes.
        gaussian_weight: Potts weight of the smoothness kernel.
        bilateral_stddev: Of the appearance kernel, in pixels, both axes.
        color_stddev: Of the appearance kernel, in grey levels (0 to 255), all channels.
        bilateral_weight: Potts weight of the appearance kernel.
        iterations: Of mean field inference.
        normalization: Of both kernels. `none` lets a pixel hear the sum of its neighbours (a mass
            of 50 for the smoothness kernel, about 1,500 for the appearance kernel in a flat image),
            which erases thin objects; `symmetric`, pydensecrf's default, scales it to about 1.
    """

    gaussian_stddev: float = 3.0
    gaussian_weight: float = 3.0
    bilateral_stddev: float = 20.0
    color_stddev: float = 3.0
    bilateral_weight: float = 5.0
    iterations: int = 10
    normalization: Normalization = "none"

    def __post_init__(self) -> None:
        """Refuses what no kernel can have."""
        for name in ("gaussian_stddev", "bilateral_stddev", "color_stddev"):
            if not getattr(self, name) > 0:
                raise InputError(f"CRF {name}={getattr(self, name)}: must be above 0")
        for name in ("gaussian_weight", "bilateral_weight", "iterations"):
            if not getattr(self, name) >= 0:
                raise InputError(f"CRF {name}={getattr(self, name)}: must be 0 or more")
        if self.normalization not in _NORMALIZATIONS:
            allowed = ", ".join(_NORMALIZATIONS)
            raise InputError(f"CRF normalization={self.normalization!r}: allowed are {allowed}")


_NORMALIZATIONS = {
    "none": "NO_NORMALIZATION",
    "before": "NORMALIZE_BEFORE",
    "after": "NORMALIZE_AFTER",
    "symmetric": "NORMALIZE_SYMMETRIC",
}


def crf_parameters(mode: str, **changes: float | int) -> CrfParameters | None:
    """Returns the parameters of a mode, some of them changed.

    Args:
        mode: `none`, `official` (the authors' unnormalised kernels) or `symmetric`.
        **changes: Fields of `CrfParameters`.

    Returns:
        The parameters, or None for `none`.

    Raises:
        InputError: If the mode or a value is not allowed, or pydensecrf is not installed.
    """
    if mode not in MODES:
        raise InputError(f"crf {mode!r}: allowed are {', '.join(MODES)}")
    if mode == "none":
        return None
    _densecrf()
    normalization = "none" if mode == "official" else "symmetric"
    return CrfParameters(**{"normalization": normalization, **changes})


def refine(image: np.ndarray, probabilities: np.ndarray, parameters: CrfParameters) -> np.ndarray:
    """Decides each label's foreground by mean field inference, one label after the other.

    Args:
        image: uint8 `[H, W, 3]`, RGB.
        probabilities: float `[K, H, W]`, foreground probabilities.
        parameters: Of the CRF.

    Returns:
        bool `[K, H, W]`.

    Raises:
        InputError: If pydensecrf is not installed.
    """
    image = np.require(image, requirements=["C", "W"])  # pydensecrf refuses read-only arrays
    decided = np.empty(probabilities.shape, bool)
    for index, foreground in enumerate(probabilities):
        decided[index] = _refine_one(image, foreground, parameters)
    return decided


def _refine_one(image: np.ndarray, foreground: np.ndarray, p: CrfParameters) -> np.ndarray:
    densecrf = _densecrf()
    height, width = foreground.shape
    foreground = np.asarray(foreground, np.float32).ravel()
    both = np.clip(np.stack([1 - foreground, foreground]), _SMALLEST, 1)
    kernel = {
        "kernel": densecrf.CONST_KERNEL,
        "normalization": getattr(densecrf, _NORMALIZATIONS[p.normalization]),
    }
    crf = densecrf.DenseCRF2D(width, height, 2)
    crf.setUnaryEnergy(np.ascontiguousarray(-np.log(both), np.float32))
    crf.addPairwiseGaussian(sxy=p.gaussian_stddev, compat=p.gaussian_weight, **kernel)
    crf.addPairwiseBilateral(
        sxy=p.bilateral_stddev,
        srgb=p.color_stddev,
        rgbim=image,
        compat=p.bilateral_weight,
        **kernel,
    )
    marginals = np.asarray(crf.inference(p.iterations))
    return (marginals[1] > marginals[0]).reshape(height, width)


def _densecrf() -> Any:
    try:
        from pydensecrf import densecrf
    except ImportError as error:
        raise InputError(
            "the CRF needs pydensecrf: pip install pydensecrf2 (it needs a C++ compiler; "
            "PyPI's own `pydensecrf` no longer compiles), or leave it out with crf=none"
        ) from error
    return densecrf
