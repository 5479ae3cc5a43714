from __future__ import annotations

from plugin_bench import bench

__all__ = ["bench"]
