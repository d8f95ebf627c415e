import numpy as np
import pytest
from color_network import draw, iou

from tfseg.inference.postprocessing import from_square
from tfseg.inference.preprocessing import to_square


def triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def keys(x):
    """Keys' cubic with a = -1/2, the kernel of MATLAB's bicubic."""
    x = np.abs(x)
    near = 1.5 * x**3 - 2.5 * x**2 + 1
    far = -0.5 * x**3 + 2.5 * x**2 - 4 * x + 2
    return np.where(x <= 1, near, np.where(x < 2, far, 0))


def weights(inputs, outputs, kernel):
    """[outputs, inputs]: half-pixel centres, the kernel widened when shrinking."""
    scale = inputs / outputs
    centers = (np.arange(outputs) + 0.5) * scale
    distance = np.arange(inputs) + 0.5 - centers[:, None]
    w = kernel(distance / max(scale, 1))
    return w / w.sum(axis=1, keepdims=True)


def resize(image, size, kernel):
    rows, columns = weights(image.shape[0], size, kernel), weights(image.shape[1], size, kernel)
    return np.einsum("yi,xj,ij...->yx...", rows, columns, image)


SIZES = [(37, 61), (61, 37), (50, 50), (200, 75), (75, 200), (1, 30), (30, 1), (20, 20), (96, 96)]


@pytest.mark.parametrize("fit", ["pad", "stretch"])
@pytest.mark.parametrize(("height", "width"), SIZES)
def test_to_square_against_numpy(height, width, fit):
    image = np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)
    side = max(height, width)
    padded = np.zeros((side, side, 3))
    padded[:height, :width] = image
    expected = resize(padded if fit == "pad" else image, 48, triangle)
    square = to_square(image, 48, fit)
    assert square.dtype == np.uint8
    # Both passes are rounded to bytes.
    np.testing.assert_allclose(square, expected, atol=1.3)


@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_an_image_on_its_side_gives_the_square_on_its_side(fit):
    """The long side is resized first, whichever it is and whatever Pillow would prefer: to the last byte."""
    image = np.random.default_rng(0).integers(0, 256, (37, 61, 3), np.uint8)
    turned = to_square(image.transpose(1, 0, 2), 48, fit)
    np.testing.assert_array_equal(turned, to_square(image, 48, fit).transpose(1, 0, 2))


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize(("name", "kernel"), [("bicubic", keys), ("bilinear", triangle)])
def test_from_square_against_numpy(height, width, name, kernel):
    maps = np.random.default_rng(width).random((2, 48, 48), np.float32)
    side = max(height, width)
    expected = [resize(single, side, kernel)[:height, :width] for single in maps]
    restored = from_square(maps, height, width, name)
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, expected, atol=2e-5)


def test_no_maps():
    assert from_square(np.zeros((0, 8, 8), np.float32), 5, 9).shape == (0, 5, 9)


@pytest.mark.parametrize(("height", "width"), [(300, 500), (500, 300), (141, 97)])
def test_there_and_back_keeps_places(height, width):
    _, mask = draw(height, width)
    for label in (1, 2, 3):
        image = np.repeat((mask == label)[..., None] * np.uint8(255), 3, axis=-1)
        square = to_square(image, 160)
        back = from_square(square[None, :, :, 0] / np.float32(255), height, width)[0]
        assert iou(mask == label, back > 0.5) > 0.95


def test_a_long_strip_needs_no_huge_square():
    # 100,000 squared would be 30 GB.
    assert to_square(np.zeros((2, 100_000, 3), np.uint8), 32).shape == (32, 32, 3)
    assert from_square(np.zeros((1, 32, 32), np.float32), 2, 100_000).shape == (1, 2, 100_000)


def test_a_stretched_square_shows_the_whole_image_and_comes_back():
    ramp = np.tile(np.linspace(0, 255, 90).astype(np.uint8)[None, :, None], (30, 1, 3))
    square = to_square(ramp, 60, "stretch")
    assert square.shape == (60, 60, 3)
    expected = np.interp((np.arange(60) + 0.5) * 1.5 - 0.5, np.arange(90), ramp[0, :, 0])
    assert np.abs(square[..., 0] - expected).max() < 2
    back = from_square(square[None, ..., 0].astype(np.float32), 30, 90, "bilinear", "stretch")[0]
    assert np.abs(back[:, 2:-2] - ramp[:, 2:-2, 0]).max() < 3
