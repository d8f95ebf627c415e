"""How many faults the tests of `make test-faults` tried, by kind; printed at the end of the run."""

import os
from collections import Counter

SCALE = int(os.environ.get("TFSEG_FAULTS", "1"))
"""How many times as many as in `make test`."""
COUNTS: Counter[str] = Counter()
