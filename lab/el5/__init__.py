"""Hosts of Enterprise Linux 5 with Xen 3.x, installed from the user's own media.

What is installed is described by models (``model``), rendered in the formats of that time, each
in its module, and put there by a kickstart.
"""
