"""`read_image` under its earlier name; it is `tfseg.data.images.read_image`."""

from tfseg.data.images import read_image

__all__ = ["read_image"]
