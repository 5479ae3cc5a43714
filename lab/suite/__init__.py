"""What a suite of driver tests is made of: how much to do, what it costs, what is known.

Nothing in here starts a machine or knows of pytest; ``backing``, ``leaks`` and ``lifecycle``
act on a place that is given to them, all else is pure.
"""
