"""``python -m lab.cli``: the command without installing it."""

from lab.cli.main import main

raise SystemExit(main())
