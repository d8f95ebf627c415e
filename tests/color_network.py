"""A network that finds red, green and blue things exactly, to test everything around a network."""

import numpy as np

from tfseg.data.labels import LabelMap
from tfseg.inference.networks import PairMaps

COLORS = {1: (220, 30, 30), 2: (30, 200, 40), 3: (40, 40, 230), 4: (230, 210, 30)}
BACKGROUND = (120, 120, 120)
LABEL_MAP = LabelMap.from_dict(
    {
        "name": "colors",
        "labels": [
            {"id": 1, "name": "red", "domain": "target", "aliases": ["crimson"]},
            {"id": 2, "name": "green", "domain": "target"},
            {"id": 3, "name": "blue", "domain": "target"},
            {"id": 4, "name": "yellow", "domain": "source"},
        ],
    }
)


class ColorNetwork:
    """Foreground probability falls with the distance of a pixel's colour from the label's."""

    def __init__(self, image_size=96, map_size=12, can_classify=True, image_fit="pad"):
        self.image_fit = image_fit
        self.image_size = image_size
        self.map_size = map_size
        self.can_classify = can_classify
        self.encoded_images = 0
        self.located_batches = []

    def classify(self, images):
        near = np.stack([_nearness(images, label) > 0.5 for label in COLORS], axis=-1)
        return np.where(near.mean(axis=(1, 2)) > 0.003, 0.9, 0.1).astype(np.float32)

    def encode(self, images):
        self.encoded_images += len(images)
        return images

    def locate(self, encoded, index, labels):
        self.located_batches.append(len(labels))
        single = [self._locate(encoded[i], label) for i, label in zip(index, labels, strict=True)]
        return PairMaps(*map(np.stack, zip(*single, strict=True)))

    def _locate(self, image, label):
        # The segmenter halves the background: undone here, so that 1/2 stays 1/2.
        wanted = _nearness(image, label)
        probability = wanted / (2 - wanted)
        side = self.image_size // self.map_size
        blocks = wanted.reshape(self.map_size, side, self.map_size, side).mean(axis=(1, 3))
        attention = blocks / max(blocks.sum(), 1e-9)
        return (probability, attention, blocks + np.float32(3))


def _nearness(image, label):
    """1 at the label's colour, 0 at the background's or farther, linear between: edges stay."""
    color = np.array(COLORS[int(label)], np.float32)
    distance = np.linalg.norm(image - color, axis=-1)
    return np.clip(1 - distance / np.linalg.norm(color - BACKGROUND), 0, 1).astype(np.float32)


def draw(height, width, background=BACKGROUND):
    """An image with asymmetric things, and its mask: flips, shifts and swapped axes show."""
    mask = np.zeros((height, width), np.uint8)
    y, x = np.mgrid[0:height, 0:width]
    unit = min(height, width)
    # A red L in the top left corner region.
    mask[int(0.1 * height) : int(0.6 * height), int(0.1 * width) : int(0.22 * width)] = 1
    mask[int(0.5 * height) : int(0.6 * height), int(0.1 * width) : int(0.4 * width)] = 1
    # A green disc near the right edge, below the middle.
    mask[(y - 0.65 * height) ** 2 + (x - 0.8 * width) ** 2 < (0.15 * unit) ** 2] = 2
    # A blue wedge at the bottom.
    mask[(y > 0.8 * height) & (x < 0.5 * width) & (x - 0.1 * width > (height - y))] = 3
    image = np.zeros((height, width, 3), np.uint8)
    image[:] = background
    for label in (1, 2, 3):
        image[mask == label] = COLORS[label]
    return image, mask


def iou(truth, prediction):
    """Set arithmetic on pixel coordinates."""
    there = {tuple(p) for p in np.argwhere(truth)}
    said = {tuple(p) for p in np.argwhere(prediction)}
    return len(there & said) / len(there | said)
