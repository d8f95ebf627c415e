"""Serves a page on this machine to try a model: drop an image, see attention, probability and mask.

The page is served on 127.0.0.1 alone and loads nothing from elsewhere; images stay on this machine.
"""

import dataclasses
import sys
from collections.abc import Sequence

from tfseg import cli
from tfseg.inference.options import SegmenterOptions

EXAMPLES = ("--model_dir=runs/demo/model", "--model_dir=runs/demo/export --port=0")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageOptions:
    """Which model is tried; each field is a flag."""

    model_dir: str = cli.flag("Model directory of tfseg.train, or a SavedModel.", exists="folder")
    port: int = cli.flag("Port on 127.0.0.1; 0 takes a free one.", default=8780, lower=0, upper=65535)
    segmenter: SegmenterOptions = cli.group(SegmenterOptions)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command until Ctrl-C; see the module's docstring."""
    return cli.run("tfseg.page", __doc__, PageOptions, _run, argv, EXAMPLES)


def _run(options: PageOptions) -> None:
    from tfseg.web.answers import Answers
    from tfseg.web.server import PageServer

    with cli.working("loading the model"):
        from tfseg.inference.segmenter import Segmenter

        segmenter = Segmenter.load(options.model_dir, **dataclasses.asdict(options.segmenter))
    with PageServer(Answers(segmenter), options.port) as server:
        print(f"open {server.url} in a browser; Ctrl-C ends it", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    sys.exit(main())
