"""`python -m ddis`, and `torchrun -m ddis`."""

import sys

from ddis.cli import main

if __name__ == "__main__":
    sys.exit(main())
