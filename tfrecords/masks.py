"""Mask files: what their pixel values mean, decided before they go into a record.

A record's mask is an 8-bit PNG whose values are label ids. Files come in other dress: few bits a sample,
palettes that a tool renumbered, 0 and 255 for "no" and "yes". What can be read in one way only is read;
the rest is refused with the flag that decides it.
"""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image

from tfseg.data.images import open_image, read_file
from tfseg.data.labels import BACKGROUND_ID, IGNORE_ID, Domain, LabelMap
from tfseg.data.voc_colors import palette
from tfseg.errors import InputError

from .choices import MaskPalette

_SPECIAL = {"background": BACKGROUND_ID, "ignore": IGNORE_ID}


@dataclass(frozen=True)
class MaskRules:
    """How the samples of mask files become label ids.

    Attributes:
        ids: label ids that may come out, beside 0 (background) and 255 (ignore).
        values: what each sample becomes; None: samples are label ids.
        palette: "index", samples are indices whatever their colours; "color", the colours are VOC's and tell
            the index; "auto", indices, but palettes of VOC's colours in another order are refused.
        hint: ends the message about values without a meaning.
    """

    ids: tuple[int, ...]
    values: Mapping[int, int] | None = None
    palette: MaskPalette = "auto"
    hint: str = ""


def parse_mask_values(text: str, label_map: LabelMap, domain: Domain) -> dict[int, int] | None:
    """Reads `--mask_values`, such as `1:disk,2:tri`.

    Args:
        text: pairs of a sample value and a label's name, "background" or "ignore"; 0 is background and 255
            ignore unless they are given.
        label_map: has the names.
        domain: of the names.

    Returns:
        Sample to label id; None for an empty text.

    Raises:
        InputError: a pair is malformed, or a name is none of the domain.
    """
    if not text.strip():
        return None
    values: dict[int, int] = {}
    for pair in text.split(","):
        sample, colon, name = (part.strip() for part in pair.partition(":"))
        if not colon or not sample.isdecimal() or not 0 <= int(sample) <= 255:
            raise InputError(
                f"--mask_values={text}: {pair.strip()!r} is no VALUE:NAME, such as 1:cat (VALUE 0 to 255)"
            )
        label = label_map.find(name)
        if label is not None and label.domain == domain:
            label_id = label.id
        elif name in _SPECIAL:
            label_id = _SPECIAL[name]
        else:
            raise InputError(
                f"--mask_values={text}: {name!r} is no label of the {domain} domain; it has "
                f"{', '.join(label_map.names(domain))}, beside background and ignore"
            )
        if values.setdefault(int(sample), label_id) != label_id:
            raise InputError(f"--mask_values={text}: gives the value {sample} twice")
    return {BACKGROUND_ID: BACKGROUND_ID, IGNORE_ID: IGNORE_ID, **values}


def read_mask(path: str | os.PathLike[str], rules: MaskRules, height: int, width: int) -> np.ndarray:
    """Reads a mask file.

    Args:
        path: a PNG with a palette (as VOC has them) or grey values; with the palette "color" also RGB.
        rules: what its samples mean.
        height: of its image.
        width: of its image.

    Returns:
        uint8 [height, width] of label ids.

    Raises:
        InputError: the file is damaged, of another kind or size, or has values without a meaning.
    """
    where = str(path)
    data = read_file(path, where, "the mask ")
    with _open(data, where) as image:
        if rules.palette == "color" and image.mode in ("P", "RGB"):
            mask = _indices_by_color(np.asarray(image.convert("RGB")), where)
        else:
            _refuse_other_modes(image, where, ("P", "L", "1"))
            mask = _samples(image, data)
            if rules.values is None or image.mode == "P":
                _refuse_ambiguous(mask, image, rules, where)
    _refuse_other_size(mask, where, height, width)
    if rules.values is None:
        _refuse_other_values(mask, where, {BACKGROUND_ID, IGNORE_ID, *rules.ids}, rules.ids, rules.hint)
        return mask
    _refuse_other_values(mask, where, set(rules.values), (), rules.hint)
    table = np.zeros(256, np.uint8)
    table[list(rules.values)] = list(rules.values.values())
    return table[mask]


def check_stored_mask(data: bytes, where: str, ids: tuple[int, ...], height: int, width: int) -> np.ndarray:
    """The mask of a record, uint8 [height, width].

    Raises:
        InputError: begins with `where`; it is no 8-bit grey PNG of that size and those ids.
    """
    with _open(data, where) as image:
        _refuse_other_modes(image, where, ("L",))
        mask = _samples(image, data)
    _refuse_other_size(mask, where, height, width)
    _refuse_other_values(mask, where, {BACKGROUND_ID, IGNORE_ID, *ids}, ids)
    return mask


def mask_values(mask: np.ndarray) -> set[int]:
    """The values that occur in a uint8 mask."""
    return set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist())


def encode_mask(mask: np.ndarray) -> bytes:
    """A uint8 [H, W] mask as an 8-bit one-channel PNG, the same bytes for the same mask."""
    encoded = io.BytesIO()
    Image.fromarray(mask).save(encoded, "PNG", compress_level=9)
    return encoded.getvalue()


def _open(data: bytes, where: str) -> Image.Image:
    image = open_image(data, where)
    try:
        image.load()
    except Exception as error:  # on damaged files Pillow raises whatever its decoders meet
        raise InputError(f"{where}: cannot be decoded ({str(error) or type(error).__name__})") from error
    return image


def _refuse_other_modes(image: Image.Image, where: str, allowed: tuple[str, ...]) -> None:
    if image.format != "PNG" or image.mode not in allowed:
        raise InputError(
            f"{where}: the mask is a {image.format} of mode {image.mode}; masks are PNG files with a palette "
            "or grey values of up to 8 bits, whose pixel values are the label ids (--mask_palette=color "
            "takes RGB in VOC's colours)"
        )


def _samples(image: Image.Image, data: bytes) -> np.ndarray:
    # Pillow spreads grey samples of 2 and 4 bits over 0 to 255. Byte 24 of a PNG is its bits a sample.
    samples = np.array(image).astype(np.uint8)
    if image.mode == "L" and data[24] < 8:
        samples //= 255 // (2 ** data[24] - 1)
    return samples


def _refuse_ambiguous(mask: np.ndarray, image: Image.Image, rules: MaskRules, where: str) -> None:
    # Values that are label ids in one reading and something else in a likelier one.
    used = sorted(mask_values(mask))
    colors = _used_colors(image, used)
    voc = {tuple(color): index for index, color in enumerate(palette().tolist())}
    if rules.palette == "auto" and colors:
        grey = all(color == (index,) * 3 for index, color in colors.items())
        moved = [(index, voc.get(color)) for index, color in colors.items() if voc.get(color) != index]
        if moved and not grey and all(color in voc for color in colors.values()):
            index, label_id = moved[0]
            raise InputError(
                f"{where}: the palette is VOC's but renumbered: index {index} has the colour of id "
                f"{label_id}; "
                "--mask_palette=color takes the ids by colour, --mask_palette=index as they stand"
            )
    if rules.values is not None:
        return
    black_and_white = image.mode == "1" or (colors.get(1) == (255,) * 3 and set(used) <= {0, 1})
    if black_and_white and 1 in used:
        raise InputError(
            f"{where}: the mask is black and white; say what its value 1 is: --mask_values=1:NAME"
        )
    ignored = voc.get(colors.get(IGNORE_ID)) == IGNORE_ID
    if IGNORE_ID in used and set(used) <= {BACKGROUND_ID, IGNORE_ID} and not ignored:
        raise InputError(
            f"{where}: the mask has no values but 0 and 255, and 255 would be ignored; say what it is: "
            "--mask_values=255:NAME, or --mask_values=255:ignore"
        )


def _used_colors(image: Image.Image, used: list[int]) -> dict[int, tuple[int, ...]]:
    if image.mode != "P":
        return {}
    colors = np.zeros((256, 3), np.uint8)
    given = np.array(image.getpalette("RGB"), np.uint8).reshape(-1, 3)[:256]
    colors[: len(given)] = given
    return {index: tuple(colors[index].tolist()) for index in used}


def _indices_by_color(pixels: np.ndarray, where: str) -> np.ndarray:
    packed = pixels.astype(np.int64) @ (65536, 256, 1)
    voc = palette().astype(np.int64) @ (65536, 256, 1)
    order = np.argsort(voc)
    found = order[np.searchsorted(voc, packed, sorter=order).clip(max=255)]
    strange = packed[voc[found] != packed]
    if strange.size:
        color = tuple(int(strange[0]).to_bytes(3, "big"))
        raise InputError(f"{where}: the mask has the colour {color}, which VOC's palette does not have")
    return found.astype(np.uint8)


def _refuse_other_size(mask: np.ndarray, where: str, height: int, width: int) -> None:
    if mask.shape != (height, width):
        raise InputError(
            f"{where}: the mask is {mask.shape[1]}x{mask.shape[0]} (width x height), "
            f"its image {width}x{height}"
        )


def _refuse_other_values(
    mask: np.ndarray, where: str, allowed: set[int], ids: tuple[int, ...], hint: str = ""
) -> None:
    wrong = sorted(mask_values(mask) - allowed)
    if wrong:
        meant = f"allowed are {', '.join(map(str, sorted(allowed)))}"
        if ids:
            meant = f"0, 255 and the label ids of its domain are allowed ({min(ids)} to {max(ids)})"
        what = f"the value{'s' * (len(wrong) > 1)} {', '.join(map(str, wrong))}"
        raise InputError(f"{where}: the mask has {what}; {meant}{hint}")
