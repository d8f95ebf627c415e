"""TransferNet in plain PyTorch, written from the same equations: what our speed is compared with.

The official network (SPEC 3) with VGG-16 and `max_pool2d(return_indices=True)` / `max_unpool2d`,
`channels_last`, and the same update: the frozen encoder without gradients, pairs without masks not decoded,
gradients of micro-batches added in place, Adam fused. Needs PyTorch, NumPy and `tfseg.config` alone.
"""

import itertools
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from tfseg.config import ModelConfig

IGNORE_LABEL = 255


class TransferNet(nn.Module):
    """Encoder, label-conditioned attention, classification and decoder.

    Args:
        config: As for `tfseg.models.build_transfernet`; of its options those that the presets `official` and
            `paper` use.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        channels, blocks = 3, []
        for depth, width in config.encoder_blocks:
            block = [nn.Conv2d(channels if i == 0 else width, width, 3, padding=1) for i in range(depth)]
            blocks.append(nn.ModuleList(block))
            channels = width
        self.encoder = nn.ModuleList(blocks).requires_grad_(False)
        positions = config.map_size**2
        self.feat_embed = nn.Linear(positions * channels, config.factors)
        self.cls_embed = nn.Linear(config.num_labels, config.factors)
        if config.combined_embed:
            self.combined_embed = nn.Linear(config.factors, config.factors)
        self.att_w = nn.Linear(config.factors, positions)
        self.ip1 = nn.Linear(channels, config.classification_units)
        self.cls_score = nn.Linear(config.classification_units, config.num_labels)
        self.lift = _deconvolution(1, config.encoder_blocks[-2][1])
        decoder = []
        for block in range(len(config.encoder_blocks) - 2, -1, -1):
            depth, width = config.encoder_blocks[block]
            below = config.encoder_blocks[max(block - 1, 0)][1]
            widths = [width] * depth + [below]
            decoder.append(nn.ModuleList(_deconvolution(*pair) for pair in itertools.pairwise(widths)))
        self.decoder = nn.ModuleList(decoder)
        self.seg_score = nn.Conv2d(config.encoder_blocks[0][1], 2, 1)
        nn.init.normal_(self.att_w.weight, std=0.01)
        self.register_buffer("mean", torch.tensor(config.bgr_mean).reshape(1, 3, 1, 1))

    def encode(self, image: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Returns conv5_3 and the indices of the poolings; image float `[B, 3, S, S]`, RGB, 0 to 255."""
        x, indices = image.flip(1) - self.mean, []
        for number, block in enumerate(self.encoder, start=1):
            for convolution in block:
                x = functional.relu(convolution(x), inplace=True)
            if number < len(self.encoder):
                x, index = functional.max_pool2d(x, 2, 2, return_indices=True)
                indices.append(index)
        return x, indices

    def attend(self, features: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the densified attention `[B, 1, h, w]` and the class logits `[B, L]`."""
        scaled = features * self.config.feature_scale
        one_hot = functional.one_hot(label - 1, self.config.num_labels).to(scaled.dtype)
        gated = self.feat_embed(scaled.flatten(1)) * self.cls_embed(one_hot)
        if self.config.combined_embed:
            gated = functional.relu(self.combined_embed(gated))
        attention = functional.softmax(self.att_w(gated).float(), dim=-1)
        flat = scaled.flatten(2)
        attended = torch.einsum("bcm,bm->bc", flat, attention.to(flat.dtype))
        densified = torch.einsum("bcm,bc->bm", flat, attended)
        logits = self.cls_score(functional.relu(self.ip1(attended)))
        return densified.reshape(-1, 1, *features.shape[2:]), logits

    def decode(self, densified: Tensor, indices: Sequence[Tensor]) -> Tensor:
        """Returns mask logits `[B, 2, S, S]`."""
        x = functional.relu(self.lift(densified))
        for block, index in zip(self.decoder, reversed(indices), strict=True):
            x = functional.max_unpool2d(x, index, 2, 2)
            for deconvolution in block:
                x = functional.relu(deconvolution(x))
        return self.seg_score(x)

    def load_keras(self, arrays: Sequence[np.ndarray]) -> None:
        """Takes `model.get_weights()` of `build_transfernet`, in its order."""
        left = iter(arrays)

        def take(layer: nn.Module, axes: tuple[int, ...]) -> None:
            kernel, bias = next(left), next(left)
            if layer is self.feat_embed:  # Positions before channels, here channels before positions.
                side, channels = self.config.map_size, self.config.feature_channels
                kernel = kernel.reshape(side, side, channels, -1).transpose(2, 0, 1, 3).reshape(kernel.shape)
            with torch.no_grad():
                layer.weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel.transpose(axes))))
                layer.bias.copy_(torch.from_numpy(bias))

        for block in self.encoder:
            for convolution in block:
                take(convolution, (3, 2, 0, 1))
        combined = [self.combined_embed] if self.config.combined_embed else []
        for layer in (self.feat_embed, self.cls_embed, *combined, self.att_w, self.ip1, self.cls_score):
            take(layer, (1, 0))
        for layer in (self.lift, *(layer for block in self.decoder for layer in block)):
            take(layer, (3, 2, 0, 1))
        take(self.seg_score, (3, 2, 0, 1))


class JointStage:
    """The update of equation (9) on one balanced batch, target micro-batches first, as ours.

    Args:
        network: The network; its encoder stays as it is.
        batch_size: Pairs of an update.
        micro_batch_size: Pairs computed at once; 0 for all of a domain.
        learning_rate: Of Adam; biases twice, the class score ten times (SPEC 5).
        autocast: Type in which layers compute, `torch.bfloat16` for instance; None for their own.
        compiled: Whether `torch.compile` compiles the computation of a micro-batch.
    """

    def __init__(
        self,
        network: TransferNet,
        batch_size: int,
        micro_batch_size: int = 0,
        learning_rate: float = 1e-4,
        autocast: torch.dtype | None = None,
        compiled: bool = False,
    ) -> None:
        self._network, self._pairs, self._autocast = network, batch_size, autocast
        self._micro = micro_batch_size or batch_size // 2
        groups = []
        for name, parameter in network.named_parameters():
            if parameter.requires_grad:
                factor = (10 if name.startswith("cls_score") else 1) * (2 if name.endswith("bias") else 1)
                groups.append({"params": [parameter], "lr": learning_rate * factor})
        self._optimizer = torch.optim.Adam(groups, eps=1e-8, fused=True)
        self._losses = torch.compile(self._losses_of) if compiled else self._losses_of

    def update(self, batch: dict[str, dict[str, Tensor]]) -> Tensor:
        """Takes one step and returns the loss before it; batches as of `tfseg.data.batches`, images NCHW."""
        self._optimizer.zero_grad(set_to_none=True)
        valid = (batch["source"]["mask"] != IGNORE_LABEL).sum()
        total = torch.zeros((), device=valid.device)
        for start in range(0, self._pairs // 2, self._micro):
            for domain in ("target", "source"):
                part = {name: x[start : start + self._micro] for name, x in batch[domain].items()}
                loss = self._losses(part["image"], part["label"], part["mask"], valid, domain == "source")
                loss.backward()
                total += loss.detach()
        self._optimizer.step()
        return total

    def _losses_of(self, image: Tensor, label: Tensor, mask: Tensor, valid: Tensor, decoded: bool) -> Tensor:
        with torch.autocast(image.device.type, self._autocast, enabled=self._autocast is not None):
            with torch.no_grad():
                features, indices = self._network.encode(image)
            densified, logits = self._network.attend(features, label)
            mask_logits = self._network.decode(densified, indices) if decoded else None
        loss = functional.cross_entropy(logits.float(), label - 1, reduction="sum") / self._pairs
        if decoded:
            pixels = functional.cross_entropy(
                mask_logits.float(), mask.long(), ignore_index=IGNORE_LABEL, reduction="sum"
            )
            loss = loss + pixels / valid
        return loss


def random_batch(config: ModelConfig, share: int, device: str = "cpu") -> dict[str, dict[str, Tensor]]:
    """Returns the batch that `train_step_worker.py` trains on, for PyTorch."""
    rng = np.random.default_rng(0)
    size, batch = config.image_size, {}
    for domain in ("source", "target"):
        low, high = (0, 2) if domain == "source" else (255, 256)
        image = torch.from_numpy(rng.uniform(0, 255, (share, size, size, 3)).astype(np.float32))
        batch[domain] = {
            "image": image.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last),
            "label": torch.from_numpy(rng.integers(1, config.num_labels + 1, share)),
            "mask": torch.from_numpy(rng.integers(low, high, (share, size, size)).astype(np.uint8)),
        }
        batch[domain] = {name: x.to(device) for name, x in batch[domain].items()}
    return batch


def _deconvolution(inputs: int, outputs: int) -> nn.ConvTranspose2d:
    layer = nn.ConvTranspose2d(inputs, outputs, 3, padding=1)
    nn.init.normal_(layer.weight, std=0.01)
    nn.init.zeros_(layer.bias)
    return layer
