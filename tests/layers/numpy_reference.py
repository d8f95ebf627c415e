"""The layers in NumPy, one loop per index of the equation; slow, and sharing nothing with the code tested."""

import numpy as np


def max_pool_with_switches(inputs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """2x2 max pooling, SPEC 13: the first maximum of the window, read row by row, wins."""
    batch, height, width, channels = inputs.shape
    pooled = np.empty((batch, height // 2, width // 2, channels), inputs.dtype)
    switches = np.empty(pooled.shape, np.uint8)
    for b, i, j, c in np.ndindex(pooled.shape):
        best = 0
        window = [inputs[b, 2 * i + k // 2, 2 * j + k % 2, c] for k in range(4)]
        for k in range(1, 4):
            if window[k] > window[best]:
                best = k
        pooled[b, i, j, c], switches[b, i, j, c] = window[best], best
    return pooled, switches


def max_unpool(values: np.ndarray, switches: np.ndarray) -> np.ndarray:
    """Unpooling, SPEC 13: zeros, and each value at the place that its switch names."""
    batch, height, width, channels = values.shape
    outputs = np.zeros((batch, 2 * height, 2 * width, channels), values.dtype)
    for b, i, j, c in np.ndindex(values.shape):
        k = int(switches[b, i, j, c])
        outputs[b, 2 * i + k // 2, 2 * j + k % 2, c] = values[b, i, j, c]
    return outputs


def flat_argmax(switches: np.ndarray) -> np.ndarray:
    """Switches as indices `(y * width + x) * channels + c` into each image."""
    _, height, width, channels = switches.shape
    argmax = np.empty(switches.shape, np.int64)
    for b, i, j, c in np.ndindex(switches.shape):
        k = int(switches[b, i, j, c])
        pixel = np.ravel_multi_index((2 * i + k // 2, 2 * j + k % 2), (2 * height, 2 * width))
        argmax[b, i, j, c] = pixel * channels + c
    return argmax


def label_one_hot(label: np.ndarray, num_labels: int) -> np.ndarray:
    """y^l of equation (2), ids from 1."""
    outputs = np.zeros((len(label), num_labels))
    for b, identity in enumerate(label):
        if 1 <= identity <= num_labels:
            outputs[b, identity - 1] = 1.0
        else:
            outputs[b] = np.nan
    return outputs


def spatial_softmax(alpha: np.ndarray) -> np.ndarray:
    """Equation (3)."""
    outputs = np.empty(alpha.shape)
    for b in range(len(alpha)):
        powers = [np.exp(value - max(alpha[b])) for value in alpha[b]]
        outputs[b] = np.array(powers) / sum(powers)
    side = int(np.sqrt(alpha.shape[1]))
    return outputs.reshape(-1, side, side)


def attended_feature(features: np.ndarray, attention: np.ndarray) -> np.ndarray:
    """Equation (5): z_c = sum_i a_i A_ic."""
    outputs = np.zeros((features.shape[0], features.shape[3]))
    for b, i, j, c in np.ndindex(features.shape):
        outputs[b, c] += attention[b, i, j] * features[b, i, j, c]
    return outputs


def densified_attention(features: np.ndarray, attended: np.ndarray) -> np.ndarray:
    """Equation (7): s_i = sum_c A_ic z_c."""
    outputs = np.zeros(features.shape[:3])
    for b, i, j, c in np.ndindex(features.shape):
        outputs[b, i, j] += features[b, i, j, c] * attended[b, c]
    return outputs


def gram_matrix(features: np.ndarray) -> np.ndarray:
    """Equation (10): G = A A^T, positions in row-major order."""
    batch, height, width, _ = features.shape
    outputs = np.zeros((batch, height * width, height * width))
    for b, m, n in np.ndindex(outputs.shape):
        left = features[b, m // width, m % width]
        right = features[b, n // width, n % width]
        outputs[b, m, n] = np.dot(left, right)
    return outputs


def caffe_normalization(image: np.ndarray, bgr_mean: tuple[float, float, float]) -> np.ndarray:
    """SPEC 4.5, step 3: channels reversed, mean subtracted."""
    outputs = np.empty(image.shape)
    for channel in range(3):
        outputs[..., channel] = image[..., 2 - channel] - bgr_mean[channel]
    return outputs
