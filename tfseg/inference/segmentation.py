"""`Segmentation`: what was found in one image, and how it is looked at, in Python and in notebooks."""

import dataclasses
import os
import sys
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from tfseg.data.voc_colors import save_indexed_png
from tfseg.errors import InputError
from tfseg.inference import pictures
from tfseg.inference.postprocessing import from_square
from tfseg.inference.preprocessing import ImageFit

_CELL = 240  # Longer side of a picture in `plot`, pixels.


@dataclasses.dataclass(frozen=True, repr=False)
class Segmentation:
    """What was found in one image of H x W pixels.

    ```python
    result = Segmenter.load("model").segment("cat.jpg")
    result                                              # Segmentation(375x500 pixels: cat 21.3 %)
    result.show()
    result.save("cat.png")
    cat = result.probabilities[result.names.index("cat")]
    ```

    A notebook shows `overlay()` in its place.

    Attributes:
        image: uint8 `[H, W, 3]`, the image as it was read.
        label_map: uint8 `[H, W]`, label ids, 0 where background.
        labels: The K labels that were looked for.
        names: Their names.
        probabilities: float32 `[K, H, W]`, foreground probability of each label after
            `scale_background`, before any CRF.
        foreground: bool `[K, H, W]`, each label's foreground by the CRF; None without one.
        attention: float32 `[K, h, w]`, a of equation (3) over the network's square; None from a
            SavedModel, which does not tell.
        densified: float32 `[K, h, w]`, s of equation (7), as `attention`.
        label_probabilities: float32 `[L]`, the classifier's; None where labels were given.
        image_fit: How the image became that square, see `ModelConfig`.
    """

    image: np.ndarray
    label_map: np.ndarray
    labels: tuple[int, ...]
    names: tuple[str, ...]
    probabilities: np.ndarray
    foreground: np.ndarray | None
    attention: np.ndarray | None
    densified: np.ndarray | None
    label_probabilities: np.ndarray | None
    image_fit: ImageFit = "pad"

    def shares(self) -> dict[str, float]:
        """Returns the share of the image, 0 to 1, that each label covers, by name."""
        pairs = zip(self.labels, self.names, strict=True)
        return {name: float((self.label_map == label).mean()) for label, name in pairs}

    def __repr__(self) -> str:
        height, width = self.label_map.shape
        found = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.shares().items())
        return f"Segmentation({height}x{width} pixels: {found or 'no label'})"

    def overlay(self, alpha: float = 0.5) -> Image.Image:
        """Draws the mask over the image, with the names of the labels and their shares below.

        Args:
            alpha: Share of the labels' colours, 0 to 1.
        """
        drawn = pictures.overlay(self.image, self.label_map, alpha)
        shares = self.shares().values()
        named = zip(self.labels, self.names, shares, strict=True)
        entries = [(label, f"{name} {100 * share:.1f} %") for label, name, share in named]
        return Image.fromarray(pictures.legend(drawn, entries))

    def plot(self) -> Image.Image:
        """Draws a row for each label: image, attention, densified attention, probability and mask.

        The attention is left out where the model does not tell it.
        """
        image = pictures.fit(self.image, _CELL)
        maps = {"attention a": self.attention, "densified s": self.densified}
        told = {title: values for title, values in maps.items() if values is not None}
        rows = []
        for k, label in enumerate(self.labels):
            drawn = [
                image,
                *(pictures.heat(image, values[k], fit=self.image_fit) for values in told.values()),
            ]
            drawn.append(pictures.grey(self.probabilities[k]))
            only = np.where(self.label_map == label, self.label_map, 0)
            drawn.append(pictures.overlay(image, pictures.fit(only, _CELL, flat=True)))
            rows.append([pictures.Cell(picture) for picture in drawn])
        titles = ["image", *told, "probability", "mask"]
        rows = rows or [[pictures.Cell(image)]]
        return Image.fromarray(pictures.sheet(rows, titles[: len(rows[0])], self.names))

    def show(self) -> None:
        """Shows `plot()`: in a notebook below the cell, elsewhere in the system's viewer of images."""
        ipython = sys.modules.get("IPython")
        if ipython is not None and ipython.get_ipython() is not None:
            png = pictures.encode_png(np.asarray(self.plot()))
            ipython.display.display(ipython.display.Image(data=png))
        else:
            self.plot().show()

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the mask as a PNG file of label ids in VOC's colours, as `tfseg.predict` does.

        Args:
            path: Of the file, `NAME.png`. `overlay().save(...)` writes the picture of it instead.

        Raises:
            InputError: If it is no name of a PNG file.
        """
        if Path(path).suffix.lower() != ".png":
            raise InputError(f"{path}: a mask is written as .png; overlay().save(...) writes a picture of it")
        save_indexed_png(path, self.label_map)

    def upsampled(self, maps: Literal["attention", "densified"] = "attention") -> np.ndarray:
        """Returns a map of each label at the image's size, bicubic, within the map's own range.

        Args:
            maps: Which: a of equation (3), or s of equation (7).

        Returns:
            float32 `[K, H, W]`.

        Raises:
            InputError: If the model does not tell it.
        """
        values = {"attention": self.attention, "densified": self.densified}[maps]
        if values is None:
            raise InputError(f"the model does not tell {maps}: load the model directory, not its export")
        height, width = self.label_map.shape
        low, high = (values.min((1, 2), keepdims=True), values.max((1, 2), keepdims=True))
        return from_square(values, height, width, fit=self.image_fit).clip(low, high)

    def _repr_png_(self) -> bytes:
        return pictures.encode_png(np.asarray(self.overlay()))
