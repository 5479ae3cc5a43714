"""tests/unit/store/test_store_idempotent.py on PostgreSQL."""

from test_store_idempotent import *  # noqa: F403
