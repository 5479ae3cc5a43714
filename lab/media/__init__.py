"""What users bring: installation media and programs that may not be shipped.

Recognised by content, kept in the cache under the hash of their bytes, never fetched.
"""
