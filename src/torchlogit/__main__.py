"""``python -m torchlogit``."""

from torchlogit.cli import main

main()
