"""`python -m autotl.cli`, which needs no installed command."""

import sys

from autotl.cli import main

sys.exit(main())
