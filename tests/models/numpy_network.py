"""TransferNet in NumPy, after SPEC 3, for small networks; shares nothing with the models it checks.

Weights come as `{layer name: [kernel, bias]}` in Keras layout.
"""

import numpy as np

from tfseg.config import ModelConfig

Weights = dict[str, list[np.ndarray]]


def conv3x3(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray, padding: str = "zero") -> np.ndarray:
    """Convolution (cross-correlation) 3x3; kernel [3, 3, in, out].

    One pixel is added around: zeros, or for `symmetric` the outermost pixels once more.
    """
    _, height, width, _ = x.shape
    mode = {"zero": "constant", "symmetric": "edge"}[padding]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode=mode)
    result = np.zeros((*x.shape[:3], kernel.shape[3])) + bias
    for dy in range(3):
        for dx in range(3):
            result += padded[:, dy : dy + height, dx : dx + width] @ kernel[dy, dx]
    return result


def deconv3x3(x: np.ndarray, kernel: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """Transposed convolution 3x3, pad 1: every input pixel stamps the kernel [3, 3, out, in]."""
    batch, height, width, _ = x.shape
    stamped = np.zeros((batch, height + 2, width + 2, kernel.shape[2]))
    for dy in range(3):
        for dx in range(3):
            stamped[:, dy : dy + height, dx : dx + width] += x @ kernel[dy, dx].T
    return stamped[:, 1:-1, 1:-1] + bias


def relu(x: np.ndarray) -> np.ndarray:
    return np.where(x > 0, x, 0.0)


def windows(x: np.ndarray) -> np.ndarray:
    """The 2x2 windows of [B, H, W, C], row by row: [4, B, H/2, W/2, C]."""
    return np.stack([x[:, dy::2, dx::2] for dy in (0, 1) for dx in (0, 1)])


def encoder(
    config: ModelConfig, weights: Weights, image: np.ndarray
) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
    """Features, switches of each pooling, and how clear each switch is (best minus second best)."""
    x = image[..., ::-1] - np.array(config.bgr_mean)
    switches, margins = [], []
    for block, (depth, _) in enumerate(config.encoder_blocks, start=1):
        for index in range(1, depth + 1):
            x = relu(conv3x3(x, *weights[f"conv{block}_{index}"], config.encoder_padding))
        if block < len(config.encoder_blocks):
            candidates = windows(x)
            ordered = np.sort(candidates, axis=0)
            switches.append(candidates.argmax(axis=0))
            margins.append(ordered[3] - ordered[2])
            x = ordered[3]
    return x, switches, margins


def attention(
    config: ModelConfig, weights: Weights, features: np.ndarray, label: np.ndarray
) -> dict[str, np.ndarray]:
    """Equations (3) to (7) as SPEC 3.6 writes them."""
    side, depth = config.map_size, config.feature_channels
    flat_map = config.feature_scale * features.reshape(-1, side * side, depth)
    kernel, bias = weights["feat_embed"]
    feat = flat_map.reshape(len(features), -1) @ kernel + bias
    kernel, bias = weights["cls_embed"]
    cls = kernel[label - 1] + bias
    gated = {
        "multiplicative": lambda: feat * cls,
        "additive": lambda: feat + cls,
        "concat": lambda: np.concatenate([feat, cls], axis=1),
    }[config.gating]()
    if config.combined_embed:
        kernel, bias = weights["combined_embed"]
        gated = relu(gated @ kernel + bias)
    kernel, bias = weights["att_w"]
    alpha = gated @ kernel + bias
    if config.label_queries:
        (queries,) = weights["att_query"]
        alpha += np.einsum("bmc,bc->bm", flat_map, queries[label - 1])
    powers = np.exp(alpha - alpha.max(axis=1, keepdims=True))
    a = powers / powers.sum(axis=1, keepdims=True)
    z = np.einsum("bm,bmc->bc", a, flat_map)
    s = np.einsum("bmc,bc->bm", flat_map, z)
    hidden = relu(z @ weights["ip1"][0] + weights["ip1"][1])
    return {
        "attention": a.reshape(-1, side, side),
        "densified": s.reshape(-1, side, side),
        "class_logits": hidden @ weights["cls_score"][0] + weights["cls_score"][1],
    }


def decoder(
    config: ModelConfig, weights: Weights, densified: np.ndarray, switches: list[np.ndarray]
) -> np.ndarray:
    """The table of SPEC 3.5, for any number of blocks."""
    top = len(config.encoder_blocks)
    x = relu(deconv3x3(densified[..., None], *weights[f"deconv{top}_1"]))
    for block in range(top - 1, 0, -1):
        switch = switches[block - 1]
        unpooled = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2], x.shape[3]))
        for k, corner in enumerate([(0, 0), (0, 1), (1, 0), (1, 1)]):
            unpooled[:, corner[0] :: 2, corner[1] :: 2] = np.where(switch == k, x, 0.0)
        x = unpooled
        for index in range(1, config.encoder_blocks[block - 1][0] + 1):
            x = relu(deconv3x3(x, *weights[f"deconv{block}_{index}"]))
    kernel, bias = weights["seg_score"]
    return x @ kernel[0, 0] + bias
