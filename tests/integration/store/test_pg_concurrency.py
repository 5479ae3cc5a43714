"""tests/unit/store/test_store_concurrency.py on PostgreSQL."""

from test_store_concurrency import *  # noqa: F403
