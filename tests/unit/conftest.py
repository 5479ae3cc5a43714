"""What all unit tests share."""

from hypothesis import settings

# How long an example takes says nothing on a machine that has more to do.
settings.register_profile("pvlab", deadline=None)
settings.load_profile("pvlab")
