"""tests/unit/store/test_store_open.py on PostgreSQL."""

from test_store_open import *  # noqa: F403
