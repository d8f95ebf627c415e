"""Reproduces table 1 of the paper; this command is `tfseg.paper.table1`."""

import sys

from tfseg.paper.table1 import main

if __name__ == "__main__":
    sys.exit(main())
