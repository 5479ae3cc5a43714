"""An installation with play-setup in the part of Windows' setup."""

from lab.install.build import build_play as build

__all__ = ["build"]
