"""``python -m bowerbird`` is the command ``bowerbird``."""

import sys

from bowerbird.cli import main

sys.exit(main())
