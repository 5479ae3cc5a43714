"""Windows Server 2003 SP2, 32-bit PAE, from the user's media."""

from lab.install.build import build_2003 as build
from lab.install.build import plan_2003 as plan

__all__ = ["build", "plan"]
