"""Charts, drawn when the site is written: SVG by Vega-Lite, so that pages need no script.

https://vega.github.io/vega-lite/docs/ (version 5). Colours are those of the style sheet, which
replaces them by attribute where a reader prefers a dark page.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from lab.core.errors import UsageError
from lab.site.model import Mark, Night, Result, Trend

INK = "#1a1a1b"
LINE = "#d0d0d1"
ACCENT = "#00618f"

COLOURS: Mapping[Mark, str] = {
    Mark.PASSED: "#00618f",
    Mark.FAILED: "#b34700",
    Mark.LAB: "#7a5c00",
    Mark.UNDECIDED: "#8a3a6b",
    Mark.XPASSED: "#8a3a6c",
    Mark.KNOWN: "#00618e",
    Mark.SKIPPED: "#5c5c5d",
}
SHAPES: Mapping[Mark, str] = {
    Mark.PASSED: "circle",
    Mark.FAILED: "cross",
    Mark.LAB: "triangle-up",
    Mark.UNDECIDED: "diamond",
    Mark.XPASSED: "square",
    Mark.KNOWN: "circle",
    Mark.SKIPPED: "stroke",
}
WIDTH = 880
LABEL = 40
"""Characters of a label that are shown."""
_AXIS = {
    "labelColor": INK,
    "titleColor": INK,
    "gridColor": LINE,
    "domainColor": LINE,
    "tickColor": LINE,
    "labelFontSize": 11,
    "titleFontSize": 11,
    "titleFontWeight": "normal",
}


def durations(history: Sequence[tuple[Night, Result]], expected: float | None) -> Markup:
    """A test's durations over nights, each with its outcome's shape and colour.

    Args:
        history: oldest first.
        expected: what the test says that it takes at most, in s; None when it does not.

    Raises:
        UsageError: the extra ``site`` is not installed.
    """
    nights = _labels(night.name for night, _ in history)
    values = [
        {"n": night, "s": round(result.seconds, 3), "m": result.mark.value}
        for night, (_, result) in zip(nights, history, strict=True)
    ]
    shown = [mark for mark in Mark if any(value["m"] == mark.value for value in values)]
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "point", "filled": True, "size": 46, "opacity": 1},
            "encoding": {
                "x": _nights(nights),
                "y": {"field": "s", "type": "quantitative", "title": "seconds",
                      "scale": {"zero": True, "nice": True}, "axis": {"tickCount": 4}},
                "color": _scale("m", shown, COLOURS),
                "shape": _scale("m", shown, SHAPES),
            },
        }
    ]  # fmt: skip
    if expected is not None and expected <= 3 * max(result.seconds for _, result in history):
        layers.append(
            {
                "data": {"values": [{"s": expected}]},
                "mark": {"type": "rule", "strokeDash": [5, 4], "color": INK},
                "encoding": {"y": {"field": "s", "type": "quantitative"}},
            }
        )
    return _svg({"data": {"values": values}, "layer": layers, "height": 150})


def trend(figure: Trend) -> Markup:
    """A figure over nights: medians, their intervals and the target.

    Raises:
        UsageError: the extra ``site`` is not installed.
    """
    nights = _labels(one.night for one in figure.points)
    values = [
        {"n": night, "v": one.value, "l": one.low, "h": one.high}
        for night, one in zip(nights, figure.points, strict=True)
    ]
    x = _nights(nights)
    layers: list[dict[str, Any]] = [
        {
            "mark": {"type": "rule", "color": ACCENT, "opacity": 0.45, "strokeWidth": 3},
            "encoding": {
                "x": x,
                "y": {"field": "l", "type": "quantitative", "title": _plain(figure.unit),
                      "scale": {"zero": False, "nice": True}, "axis": {"tickCount": 4}},
                "y2": {"field": "h"},
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 34, "color": ACCENT, "opacity": 1},
            "encoding": {"x": x, "y": {"field": "v", "type": "quantitative"}},
        },
    ]  # fmt: skip
    if figure.target is not None:
        layers.append(
            {
                "data": {"values": [{"t": figure.target}]},
                "mark": {"type": "rule", "strokeDash": [5, 4], "color": INK},
                "encoding": {"y": {"field": "t", "type": "quantitative"}},
            }
        )
    return _svg({"data": {"values": values}, "layer": layers, "height": 120})


def _plain(text: str) -> str:
    """Text that XML can have: others end the process, not just the call (seen with 1.9)."""
    return "".join(c if c.isprintable() else "?" for c in text)[:LABEL]


def _labels(names: Iterable[str]) -> list[str]:
    """One a name, all different."""
    made: list[str] = []
    for name in names:
        label = _plain(name)
        made.append(f"{label} ({len(made)})" if label in made else label)
    return made


def _nights(names: Sequence[str]) -> dict[str, Any]:
    """The axis of nights: each has its place, some of them are named."""
    step = max(1, -(-len(names) // 8))
    return {
        "field": "n",
        "type": "ordinal",
        "title": None,
        "sort": list(names),
        "axis": {"values": list(names[::-1][::step]), "labelAngle": 0, "grid": False},
    }


def _scale(field: str, marks: Iterable[Mark], table: Mapping[Mark, str]) -> dict[str, Any]:
    chosen = list(marks)
    return {
        "field": field,
        "type": "nominal",
        "scale": {"domain": [m.value for m in chosen], "range": [table[m] for m in chosen]},
        "legend": {"title": None, "orient": "top", "labelColor": INK, "symbolOpacity": 1},
    }


def _svg(spec: Mapping[str, Any]) -> Markup:
    # Imported late: its engine takes half a second, and few commands draw anything.
    try:
        import vl_convert
    except ImportError:
        raise UsageError(
            "charts need vl-convert-python", hint="pip install 'pvlab[site]'"
        ) from None
    whole = {
        "width": WIDTH,
        "config": {
            # What is in the picture is said in words beside it.
            "aria": False,
            "background": None,
            "view": {"stroke": None},
            "axis": _AXIS,
            "font": "sans-serif",
        },
        **spec,
    }
    text = str(vl_convert.vegalite_to_svg(whole))
    return Markup(text)  # noqa: S704 - drawn here, of numbers and of text that Vega escapes
