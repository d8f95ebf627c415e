"""Single pictures at the size at which they are shown, uint8 `[H, W, 3]`.

Images are enlarged before anything is drawn on them, so that contours and heat are fine lines and not
large pixels; masks are enlarged without interpolation, so that a pixel keeps its label.
"""

import numpy as np
from PIL import Image, ImageDraw

from tfseg.inference import pictures


def fitted_size(height: int, width: int, side: int) -> tuple[int, int]:
    """Returns (height, width) of an image whose longer side is brought to `side` pixels."""
    scale = side / max(height, width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def fit_image(image: np.ndarray, side: int) -> np.ndarray:
    """Brings the longer side of an image, uint8 `[H, W, 3]`, to `side` pixels."""
    height, width = fitted_size(*image.shape[:2], side)
    return np.array(Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS))


def fit_mask(mask: np.ndarray, side: int) -> np.ndarray:
    """Like `fit_image` for label ids, uint8 `[H, W]`: each pixel keeps one of them."""
    height, width = fitted_size(*mask.shape, side)
    return np.array(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def heat_tile(image: np.ndarray, heatmap: np.ndarray, side: int) -> np.ndarray:
    """Draws a map of the network, float `[h, w]` over the padded square, as heat on its image."""
    return pictures.heat(fit_image(image, side), heatmap)


def overlay_tile(image: np.ndarray, mask: np.ndarray, side: int) -> np.ndarray:
    """Draws a label map, uint8 `[H, W]`, as tint and contours on its image, whose own colours are muted."""
    fitted = fit_image(image, side)
    grey = fitted.mean(axis=-1, keepdims=True)
    muted = np.rint(0.15 * fitted + 0.4 * grey + 0.45 * 255).astype(np.uint8)
    return pictures.overlay(muted, fit_mask(mask, side), alpha=0.65)


def mask_tile(mask: np.ndarray, side: int) -> np.ndarray:
    """Draws a label map, uint8 `[H, W]`, in VOC's colours."""
    return pictures.mask_picture(fit_mask(mask, side))


def probability_tile(probability: np.ndarray, side: int) -> np.ndarray:
    """Draws probabilities, float `[H, W]`: black is 0 and white is 1."""
    grey = np.rint(255 * np.clip(probability, 0, 1)).astype(np.uint8)
    return fit_image(np.repeat(grey[..., None], 3, axis=-1), side)


def marked_tile(image: np.ndarray, points: list[tuple[float, float]], side: int) -> np.ndarray:
    """Draws numbered rings on an image.

    Args:
        image: uint8 `[H, W, 3]`.
        points: (x, y) in pixels of `image`, the middle of its first pixel being (0.5, 0.5).
        side: Of the tile.
    """
    tile = Image.fromarray(fit_image(image, side))
    draw = ImageDraw.Draw(tile)
    scale, radius = side / max(image.shape[:2]), side / 24
    for x, y in points:
        box = [x * scale - radius, y * scale - radius, x * scale + radius, y * scale + radius]
        draw.ellipse(box, outline="black", width=max(3, side // 50))
        inner = [box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1]
        draw.ellipse(inner, outline="white", width=max(1, side // 100))
    return np.array(tile)
