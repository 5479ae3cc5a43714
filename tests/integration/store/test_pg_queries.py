"""tests/unit/store/test_store_queries.py on PostgreSQL."""

from test_store_queries import *  # noqa: F403
