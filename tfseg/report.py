"""Writes a report of a run; this command is `tfseg.paper.report`."""

import sys

from tfseg.paper.report import main

if __name__ == "__main__":
    sys.exit(main())
