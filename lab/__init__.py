"""pvlab: the integration test lab for Windows paravirtual drivers on Xen."""

__version__ = "0.1.0"
