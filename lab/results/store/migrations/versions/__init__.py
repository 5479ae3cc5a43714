"""The steps; each module names the one before it."""
