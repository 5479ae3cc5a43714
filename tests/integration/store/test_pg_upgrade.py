"""tests/unit/store/test_store_upgrade.py on PostgreSQL."""

from test_store_upgrade import *  # noqa: F403
