"""The colours of maps and curves, the same in every picture."""

from __future__ import annotations

MAP_COLORS = "inferno"  # a colour map of matplotlib, from the lowest to the highest value

# Contrast of 3 or more against white and against the report's dark background, so that one palette serves both; the
# first five can be told apart with any colour vision.
CURVE_COLORS = ("#306ebe", "#e9622e", "#2e9e63", "#b06df0", "#96612f", "#2698c8", "#c9457f", "#8a8a8a")
_LINE_STYLES = ("-", "--", ":", "-.")


def curve_style(number: int) -> dict[str, str]:
    """Returns color and linestyle of a figure's n-th curve, counted from 0; the first 32 differ."""
    repeat, color = divmod(number, len(CURVE_COLORS))
    return {"color": CURVE_COLORS[color], "linestyle": _LINE_STYLES[repeat % len(_LINE_STYLES)]}
