"""What follows from the figures of an `analysis`: shares of the noise, gains, and their text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgebm.report.rows import NONE

Analysis = Mapping[str, Any]
ALL = "all of it"
_WIDEST = 100.0  # dB; what is better is the rounding of float32


@dataclass(frozen=True, slots=True)
class Blamed:
    """One layer, and what it costs.

    Attributes:
        layer: its entry in the analysis.
        share: its noise over the sum of the noise that every layer makes alone, 0 to 1.
        gain_db: how much the worst output gains when the layer alone is left in float; None
            where nothing is lost then.
    """

    layer: Mapping[str, Any]
    share: float
    gain_db: float | None

    @property
    def name(self) -> str:
        """The node's name with its control characters replaced."""
        return printable(str(self.layer["name"]))

    @property
    def op(self) -> str:
        """The type of the node, likewise."""
        return printable(str(self.layer["op"]))


def blamed(analysis: Analysis) -> list[Blamed]:
    """The layers in the order of the analysis: most harmful first."""
    layers = analysis["layers"]
    noise = [0.0 if db is None else 10 ** (-db / 10) for db in (x["alone_db"] for x in layers)]
    total, full = sum(noise) or 1.0, analysis["full_db"]
    return [
        Blamed(layer, each / total, _gain(layer["without_db"], full))
        for layer, each in zip(layers, noise, strict=True)
    ]


def _gain(without: float | None, full: float | None) -> float | None:
    if full is None:
        return 0.0
    return None if without is None else without - full


def fewest(layers: Sequence[Blamed], part: float = 0.8) -> list[Blamed]:
    """The fewest layers that make `part` of the noise, the worst first."""
    taken, mass = [], 0.0
    for each in sorted(layers, key=lambda layer: -layer.share):
        if mass > part - 1e-9 or each.share == 0:
            break
        taken.append(each)
        mass += each.share
    return taken


def printable(text: str) -> str:
    """`text` without what would end a line or colour a terminal."""
    return "".join(c if c.isprintable() else "�" for c in text)


def shortened(text: str, width: int) -> str:
    """At most `width` letters; the end of a path-like name says more than its middle."""
    return text if len(text) <= width else f"{text[: width // 3]}…{text[-(width * 2 // 3) :]}"


def number(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return NONE
    return f"{value:.3g}" if value else "0"


def span(low: float, high: float) -> str:
    """`[-1.5, 3]`."""
    return f"[{number(low)}, {number(high)}]"


def percent(fraction: float) -> str:
    """0.018 is `1.8 %`; what is there but small never reads 0."""
    if 0 < fraction < 0.001:
        return "< 0.1 %"
    digits = 1 if 0 < fraction < 0.0995 else 0
    return f"{100 * fraction:.{digits}f} %"


def db_text(value: float | None) -> str:
    """An SQNR; None stands for no noise at all."""
    return f"over {_WIDEST:.0f} dB" if value is None or value > _WIDEST else f"{value:.1f} dB"


def gain_text(layer: Blamed) -> str:
    """`+3.2 dB`."""
    if layer.gain_db is None:
        return ALL
    return f"{layer.gain_db:+.1f} dB" if round(layer.gain_db, 1) else "0 dB"


def clipped_text(activation: Mapping[str, Any] | None) -> str:
    """The clipped fraction of a layer's input."""
    return NONE if activation is None else percent(float(activation["clipped"]))


def spread_text(part: Mapping[str, Any] | None) -> str:
    """Largest channel over the median channel of a weight or an input, `12x`."""
    if part is None or (part["channels"] or 1) < 2:
        return NONE
    spread = part["spread"]
    return "over 1000x" if spread is None or spread > 1000 else f"{number(spread)}x"


def input_text(activation: Mapping[str, Any]) -> str:
    """Calibrated range, clipped fraction, spread of the channels and SQNR of a layer's input."""
    covered = span(activation["low"], activation["high"])
    cut = f" · {clipped_text(activation)} cut off" if activation["clipped"] else ""
    spread = f" · spread {spread_text(activation)}" if (activation["channels"] or 1) > 1 else ""
    return _unbroken(f"{covered}{cut}{spread} · {db_text(activation['db'])}")


def weight_text(weight: Mapping[str, Any]) -> str:
    """Range, spread of the channels and SQNR of a layer's weights."""
    spread = f" · spread {spread_text(weight)}" if weight["channels"] > 1 else ""
    return _unbroken(f"{span(weight['low'], weight['high'])}{spread} · {db_text(weight['db'])}")


def _unbroken(text: str) -> str:
    """Numbers stay in one line with what belongs to them."""
    parts = (part.replace(" ", "\u00a0") for part in text.split(" · "))
    return " · ".join(parts)


def time_text(layer: Mapping[str, Any]) -> str:
    """Microseconds in float and in INT8; empty where neither was measured."""
    pair = [layer.get("float_us"), layer.get("int8_us")]
    if pair == [None, None]:
        return ""
    return " → ".join(NONE if value is None else f"{value:.3g}" for value in pair)
