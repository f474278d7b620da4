"""``python -m talksplat``."""

import sys

from talksplat.cli import main

sys.exit(main())
