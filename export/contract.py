"""What the signatures of an export take and give, in words: `assets.extra/export.json`."""

from typing import Any

from tfseg.config import ModelConfig
from tfseg.data.labels import LabelMap

from .signatures import MAX_PROBABILITIES, PADDING, Options

FILE = "export.json"
FORMAT = 2
"""Exports of format 1 had `serving_default` and `classify` of S x S images only, and no such file."""

_PIXELS = "RGB, 0 to 255, rows from the top; any size within the limits, the same for all rows"
_BYTES = "A whole JPEG (grey, RGB, CMYK with Adobe's marker) or PNG file; rows may differ in size"
_LABEL = "Label id, 1 to L"
_PROBABILITY = (
    "Foreground probability of the label, 0 to 1: the plain two-way softmax, brought to the image's size by "
    "bicubic interpolation; before the background is weakened"
)
_MASK = (
    "Label ids, 0 background, at the image's size: foreground is where the label is more probable than the "
    "background after the background's probability was multiplied by background_factor; of several labels "
    "the most probable wins"
)
_PNG = f"{_MASK}. As a grey 8-bit PNG, upright if EXIF says that the image is turned"
_FOUND = f"Label ids, ascending, padded with {PADDING}"
_NAMES = "Their names, padded with empty strings"
_SCORES = "Their probabilities by the classifier, 0 to 1, padded with 0"
_WORDS = "Names, aliases or ids as text, e.g. 'dog' or '12'; rows are padded with empty strings"
_EXAMPLE = (
    "tf.Example with image/encoded (one JPEG or PNG file) and, if it names the labels to look for, "
    "image/labels (int64, 1 to L)"
)


def describe(
    model: str,
    config: ModelConfig,
    max_side: int,
    label_map: LabelMap,
    options: Options,
    has_classifier: bool,
) -> dict[str, Any]:
    """Returns the content of `export.json`.

    Args:
        model: Name of the network, as in `tfseg.models.BUILDERS`.
        config: What it was built from.
        max_side: Longest side of an image, pixels.
        label_map: What the ids mean.
        options: What the export decides for its clients.
        has_classifier: Whether it can predict labels.
    """
    return {
        "format": FORMAT,
        "model": model,
        "image_size": config.image_size,
        "image_fit": config.image_fit,
        "map_size": config.map_size,
        "label_domain": options.label_domain,
        "label_threshold": options.label_threshold,
        "background_factor": options.background_factor,
        "limits": {
            "pixels": options.max_pixels,
            "side": max_side,
            "probabilities": MAX_PROBABILITIES,
            "labels": label_map.num_labels,
        },
        "units": {
            "pixels": "H x W of one image",
            "side": "pixels",
            "probabilities": "B x K x H x W of the signature labels, float32 values",
            "labels": "L",
        },
        "signatures": signatures(options.image_dtype, has_classifier),
        "label_map": label_map.to_dict(),
    }


def signatures(image_dtype: str = "float32", has_classifier: bool = True) -> dict[str, Any]:
    """Describes every signature; an export without classifier has no `segment`, `classify` and `scores`."""
    described = _of_pixels(image_dtype) | _of_files(has_classifier)
    if not has_classifier:
        del described["segment"], described["classify"]
    return described


def _of_pixels(image_dtype: str) -> dict[str, Any]:
    image = _tensor(image_dtype, "[B, H, W, 3]", _PIXELS)
    pixels, label = _tensor("uint8", "[B, H, W, 3]", _PIXELS), _tensor("int32", "[B]", _LABEL)
    maps = "over the network's square, a padded image at its top left; side map_size for TransferNet"
    located = {
        "probability": _tensor("float32", "[B, H, W]", _PROBABILITY),
        "mask": _tensor("uint8", "[B, H, W]", _MASK),
    }
    return {
        "serving_default": {
            "meaning": "Where is one label in each image?",
            "inputs": {"image": image, "label": label},
            "outputs": located,
        },
        "pixels": {
            "meaning": "As serving_default, always of uint8: a quarter of the bytes of float32.",
            "inputs": {"image": pixels, "label": label},
            "outputs": located,
        },
        "labels": {
            "meaning": "Where are several labels in each image? Each image is encoded once.",
            "inputs": {
                "image": pixels,
                "labels": _tensor("int32", "[B, K]", f"{_LABEL}; rows are padded with {PADDING}"),
            },
            "outputs": {
                "probability": _tensor("float32", "[B, K, H, W]", f"{_PROBABILITY}; 0 for padding"),
                "label_map": _tensor("uint8", "[B, H, W]", _MASK),
            },
        },
        "classify": {
            "meaning": "How probable is each label in each image?",
            "inputs": {"image": image},
            "outputs": {
                "probability": _tensor("float32", "[B, L]", "Sigmoid, 0 to 1; column i is label i + 1")
            },
        },
        "attention": {
            "meaning": "Where does the network look for a label? For pictures.",
            "inputs": {"image": pixels, "label": label},
            "outputs": {
                "attention": _tensor("float32", "[B, h, w]", f"a of equation (3), sums to 1, {maps}"),
                "densified": _tensor("float32", "[B, h, w]", f"s of equation (7), {maps}"),
            },
        },
    }


def _of_files(has_classifier: bool) -> dict[str, Any]:
    files, label = _tensor("string", "[B]", _BYTES), _tensor("int32", "[B]", _LABEL)
    png = _tensor("string", "[B]", _PNG)
    found = {
        "labels": _tensor("int32", "[B, N]", _FOUND),
        "names": _tensor("string", "[B, N]", _NAMES),
        "mask_bytes": png,
    }
    scored = {**found, "scores": _tensor("float32", "[B, N]", _SCORES)}
    return {
        "bytes": {
            "meaning": "As serving_default, from image files to masks as files.",
            "inputs": {"image_bytes": files, "label": label},
            "outputs": {"mask_bytes": png},
        },
        "segment": {
            "meaning": "Which labels are in each image, and where? The whole job in one call.",
            "inputs": {"image_bytes": files},
            "outputs": scored,
        },
        "segment_labels": {
            "meaning": "As segment, for labels that the client names.",
            "inputs": {"image_bytes": files, "labels": _tensor("string", "[B, K]", _WORDS)},
            "outputs": found,
        },
        "examples": {
            "meaning": "As segment, for serialized tf.Examples.",
            "inputs": {"examples": _tensor("string", "[B]", _EXAMPLE)},
            "outputs": {
                **(scored if has_classifier else found),
                "mask_bytes": _tensor("string", "[B, 1]", _PNG),
            },
        },
    }


def _tensor(dtype: str, shape: str, meaning: str) -> dict[str, str]:
    return {"dtype": dtype, "shape": shape, "meaning": meaning}
