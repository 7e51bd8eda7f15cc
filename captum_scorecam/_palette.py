"""Colours of maps and curves, shared by all figures."""

from __future__ import annotations

MAP_COLORS = "inferno"  # a Matplotlib colormap, from lowest to highest value

# Each colour has a contrast ratio of at least 3 on white and on the report's dark background, so one palette serves
# both. The first five remain distinguishable with any type of colour blindness.
CURVE_COLORS = ("#306ebe", "#e9622e", "#2e9e63", "#b06df0", "#96612f", "#2698c8", "#c9457f", "#8a8a8a")
SIGNED_COLORS = (CURVE_COLORS[0], CURVE_COLORS[1])  # of values below 0 and above 0
_LINE_STYLES = ("-", "--", ":", "-.")


def curve_style(number: int) -> dict[str, str]:
    """Returns the color and linestyle of a figure's n-th curve, counting from 0; the first 32 are distinct."""
    repeat, color = divmod(number, len(CURVE_COLORS))
    return {"color": CURVE_COLORS[color], "linestyle": _LINE_STYLES[repeat % len(_LINE_STYLES)]}
