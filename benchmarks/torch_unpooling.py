"""Run by unpooling.py with .venv-torch's Python: `max_pool2d` and `max_unpool2d`, on request.

Usage: torch_unpooling.py '{"shape": [B, H, W, C]}'; see `timing.serve`. Maps are `channels_last`, the layout
in which the convolutions around them are fastest.
"""

import json
import sys

import torch
from timing import cores, serve
from torch.nn import functional


def main(text: str) -> None:
    """Answers requests until standard input ends."""
    torch.set_num_threads(cores())
    batch, height, width, channels = json.loads(text)["shape"]
    torch.manual_seed(0)
    maps = torch.relu(torch.randn(batch, channels, height, width)).contiguous(
        memory_format=torch.channels_last
    )
    values, indices = functional.max_pool2d(maps, 2, 2, return_indices=True)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return functional.max_pool2d(x, 2, 2, return_indices=True)[0]

    def unpool(x: torch.Tensor) -> torch.Tensor:
        return functional.max_unpool2d(x, indices, 2, 2)

    measurements = {}
    for kind, function, x in (("pooling", pool, maps), ("unpooling", unpool, values)):
        watched = x.detach().clone(memory_format=torch.channels_last).requires_grad_()

        def forward(function=function, x=x) -> None:
            with torch.no_grad():
                function(x)

        def both(function=function, x=watched) -> None:
            output = function(x)
            torch.autograd.grad(output, x, output.detach())

        measurements |= {f"{kind} forward": forward, f"{kind} forward + backward": both}
    serve({"measurements": list(measurements)}, measurements)


if __name__ == "__main__":
    main(sys.argv[1])
