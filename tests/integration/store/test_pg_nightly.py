"""tests/unit/store/test_store_nightly.py on PostgreSQL."""

from test_store_nightly import *  # noqa: F403
