"""tests/unit/store/test_store_import.py on PostgreSQL."""

from test_store_import import *  # noqa: F403
