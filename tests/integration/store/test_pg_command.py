"""tests/unit/store/test_results_command.py on PostgreSQL."""

from test_results_command import *  # noqa: F403
