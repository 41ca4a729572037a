"""``python -m mmindex_cli``: the same as the installed ``mmindex``."""

from mmindex_cli.app import main

main()
