"""Profiles: what to boot, how much memory and time to give it, and what to call it."""
