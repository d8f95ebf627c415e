"""`python -m tfseg COMMAND` is the console script `tfseg COMMAND`."""

import sys

from tfseg.commands import main

if __name__ == "__main__":
    sys.exit(main())
