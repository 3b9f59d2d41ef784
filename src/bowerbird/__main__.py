"""``python -m bowerbird`` is the command ``bowerbird``."""

import sys


def main() -> int:
    """Runs the command line; Ctrl-C while it is still being imported ends in the same sentence as later."""
    try:
        from bowerbird.cli import main as run
    except KeyboardInterrupt:
        print("bowerbird: Interrupted.", file=sys.stderr)
        return 130
    return run()


if __name__ == "__main__":
    sys.exit(main())
