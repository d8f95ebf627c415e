"""Draws figures of the paper; this command is `tfseg.paper.figures`."""

import sys

from tfseg.paper.figures import main

if __name__ == "__main__":
    sys.exit(main())
