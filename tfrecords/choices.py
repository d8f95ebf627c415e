"""The words that the builders' flags take, and what they mean."""

from typing import Literal

Unlisted = Literal["error", "ignore", "background"]
"""Categories that the label map does not list: refused; no label and 255 in masks; no label and 0."""
Malformed = Literal["fail", "skip"]
"""Malformed entries and unusable images: all told at once and refused; left out and counted."""
Exif = Literal["error", "apply", "ignore"]
"""Images that EXIF says to turn: refused; turned upright; left as they are stored."""
EmptyRegions = Literal["drop", "keep"]
"""Categories of which no pixel lies in the image: no label; a label all the same."""
LabelsFrom = Literal["annotations", "masks"]
"""Where the labels of an image in VOC's layout come from."""
MaskPalette = Literal["auto", "index", "color"]
"""Masks with a palette: indices, refused if the colours are VOC's in another order; indices whatever the
colours; by VOC's colours."""
MaskIds = Literal["auto", "label_map", "voc"]
"""What VOC masks hold: "voc" if the domain's labels are VOC's classes and other classes are left out, else
"label_map"; the label map's ids; VOC's own indices."""
