"""Reproduces figure 4 of the paper; this command is `tfseg.paper.figure4`."""

import sys

from tfseg.paper.figure4 import main

if __name__ == "__main__":
    sys.exit(main())
