"""Trains one stage of a network from records; an interrupted training goes on from its last checkpoint.

The flags stand in `tfseg.training.options`, the training itself in `tfseg.training.loop`.
"""

import sys
from collections.abc import Sequence

from tfseg import cli
from tfseg.training.cluster import Cluster, read_cluster
from tfseg.training.folder import training_folder
from tfseg.training.options import TrainingOptions

EXAMPLES = (
    "--flagfile=tfseg:demo/encoder.cfg --data_dir=runs/demo/records --model_dir=runs/mine",
    "--flagfile=tfseg:demo/joint.cfg --data_dir=runs/demo/records --model_dir=runs/mine --steps=2000",
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command; see the module's docstring."""
    return cli.run("tfseg.train", __doc__, TrainingOptions, _run, argv, EXAMPLES)


def _run(options: TrainingOptions) -> None:
    cluster = read_cluster()
    if cluster and not cluster.is_chief:
        _train(options, cluster)
        return
    with training_folder(options.model_dir, "--model_dir=", options.stage):
        _train(options, cluster)


def _train(options: TrainingOptions, cluster: Cluster | None) -> None:
    if cluster:
        cluster.meet()
    with cli.working("loading TensorFlow"):  # Once the flags are known to be right.
        from tfseg.training.loop import train

    train(options, cluster=cluster)


if __name__ == "__main__":
    sys.exit(main())
