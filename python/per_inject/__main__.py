"""``python -m per_inject`` is the program ``per-inject``."""

import sys

from ._program import main

sys.exit(main())
