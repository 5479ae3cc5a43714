"""tests/unit/store/test_store_prune.py on PostgreSQL."""

from test_store_prune import *  # noqa: F403
