"""Batch files that run in guests, as templates. A package, so that they count in image keys."""
