"""A few sentences on what quantization does to a model, each by a rule from its figures.

Where no rule applies nothing is said.
"""

from __future__ import annotations

import glob
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from edgebm.report.blame import (
    Analysis,
    Blamed,
    blamed,
    db_text,
    fewest,
    number,
    percent,
    printable,
    shortened,
    span,
)

_FINE_DB = 30.0  # a noise of 3 % of the signal; above, there is nothing to mend
_ALONE, _AHEAD = 0.4, 2.0  # share of the noise, and the lead on the second, of a sole culprit
_FEW = 5
_APART_DB = 3.0  # one of weight and input is the cause when it is that much noisier
_WASTED = 4.0  # a range so many times as wide as where 99 % of the values lie
_EVEN_DB = 30.0  # normal weights, whose peak is at 3.5 sigma, keep 36 dB on 7 bits
_UNEVEN = 8.0  # the largest channel over the median one
_CLIPPED = 0.001
_WORTH_DB = 1.0  # less is no reason to leave a layer in float
_NAME, _ARGUMENT = 60, 120


def findings(analysis: Analysis) -> list[str]:
    """What is wrong and what to do, the most important first."""
    layers = blamed(analysis)
    if not layers:
        return ["No layer runs on integers, so none is to blame."]
    sentences = [_state(analysis)]
    if analysis["full_db"] is not None:
        sentences += _blame(analysis, layers)
    repair = analysis.get("repair")
    if repair:
        sentences.append(_repaired(repair))
    return sentences


def _state(analysis: Analysis) -> str:
    grid, full = str(analysis["grid"]), analysis["full_db"]
    count = len(analysis["layers"])
    head = f"With {count} layer{'s' * (count != 1)} on {_bits(grid)}"
    if full is None:
        return f"{head} the outputs do not change at all."
    noise = percent(10 ** (-full / 20))
    text = f"{head} the worst output keeps {db_text(full)}: a noise of {noise} of the signal"
    return f"{text}, little enough that nothing needs mending." if full >= _FINE_DB else f"{text}."


def _bits(grid: str) -> str:
    weight, _, activation = grid.removeprefix("w").partition("a")
    if not (weight.isdigit() and activation.isdigit()):
        return "integers"
    if weight == activation:
        return f"{weight}-bit integers"
    return f"integers ({weight} bits for weights, {activation} for activations)"


def _blame(analysis: Analysis, layers: Sequence[Blamed]) -> list[str]:
    worst, culprits = layers[0], fewest(layers)
    repair = analysis.get("repair") or {}
    mend = analysis["full_db"] < _FINE_DB and not repair.get("lifted")
    if len(layers) > 1 and worst.share >= max(_ALONE, _AHEAD * layers[1].share):
        text = (
            f"{_named(worst)} alone makes {percent(worst.share)} of it{_effect(analysis, worst)}"
        )
        shown = [worst]
    elif len(culprits) <= _FEW and 2 * len(culprits) <= len(layers):
        listed = ", ".join(_named(each) for each in culprits)
        text = f"{len(culprits)} of the {len(layers)} layers make four fifths of it: {listed}."
        shown = culprits[:2]
    elif len(layers) > _FEW:
        text = (
            f"No single layer is to blame: the worst, {_named(worst)}, makes "
            f"{percent(worst.share)}, and it takes {len(culprits)} of {len(layers)} layers to "
            "make four fifths."
        )
        best = max(layers, key=_gain)
        return [text, *(_spread_advice(best) if mend else [])]
    else:
        text, shown = f"Most of it, {percent(worst.share)}, comes from {_named(worst)}.", [worst]
    causes = [cause for each in shown if (cause := _cause(each))]
    return [text, *causes, *_advice(shown)] if mend else [text]


def _effect(analysis: Analysis, layer: Blamed) -> str:
    full = analysis["full_db"]
    if layer.gain_db is None:
        return "; left in float, the outputs lose nothing."
    if layer.gain_db < _WORTH_DB:
        return "."
    return (
        f"; left in float, the output keeps {db_text(full + layer.gain_db)} "
        f"({layer.gain_db:.1f} dB more)."
    )


def _cause(each: Blamed) -> str:
    """Why this layer suffers; empty where its figures do not tell."""
    weight, activation = each.layer["weight"], each.layer["activation"]
    weight_db = _known_db(weight)
    activation_db = _known_db(activation)
    if activation is not None and (
        activation_db <= weight_db - _APART_DB or _is_uneven(activation)
    ):
        return _input_cause(each, activation)
    if weight is not None and weight_db <= activation_db - _APART_DB:
        return _weight_cause(each, weight)
    return ""


def _input_cause(each: Blamed, activation: Mapping[str, Any]) -> str:
    of = f"The input of {_short(each.name)}"
    covered = span(activation["low"], activation["high"])
    if activation["clipped"] >= _CLIPPED:
        seen = span(activation["seen_low"], activation["seen_high"])
        return (
            f"{of} takes values in {seen}, but its integers cover {covered}: "
            f"{percent(activation['clipped'])} of the values are cut off."
        )
    if _wasted(activation) >= _WASTED:
        common = span(activation["common_low"], activation["common_high"])
        return (
            f"{of} spans {covered} while 99 % of the values lie in {common}: few of the "
            "integers are left for them."
        )
    if _is_uneven(activation):
        peak = max(-activation["seen_low"], activation["seen_high"])
        return (
            f"{of} is uneven: its largest channel reaches {number(peak)}, the median one of "
            f"{activation['channels']} only {number(activation['median_peak'])}, and one step "
            "serves them all."
        )
    if each.layer["weight"] is None:
        return ""
    return f"{of} loses more than its weights: it keeps {db_text(activation['db'])} by itself."


def _weight_cause(each: Blamed, weight: Mapping[str, Any]) -> str:
    text = (
        f"The weights of {_short(each.name)} lose more than its input: they keep "
        f"{db_text(weight['db'])} by themselves"
    )
    if weight["channels"] == 1:
        return f"{text}, with one step for all channels."
    if weight["db"] >= _EVEN_DB:
        return f"{text}."
    return f"{text}: within a channel a few are far larger than the rest."


def _advice(layers: Sequence[Blamed]) -> list[str]:
    first = layers[0].layer["activation"]
    tries = []
    if first is not None and first["clipped"] >= _CLIPPED:
        tries.append("the observer minmax, or more samples like those it will meet")
    elif first is not None and _wasted(first) >= _WASTED:
        tries.append("an observer that gives up rare values (mse, percentile)")
    elif first is not None and _is_uneven(first):
        tries.append("steps that even channels out (equalize_channels, smooth_activations)")
    tries.append("-r int8-accurate, which searches longer")
    worth = [each for each in layers if _gain(each) >= _WORTH_DB]
    names = [str(each.layer["name"]) for each in worth]
    if names and all(name == printable(name) and len(name) <= _ARGUMENT for name in names):
        # --ignored takes patterns, so brackets and stars in a name must stand for themselves.
        given = " ".join(f"--ignored {shlex.quote(glob.escape(name))}" for name in names)
        tries.append(f"keep {'it' if len(names) == 1 else 'them'} in float with {given}")
    return [f"Try {'; or '.join(tries)}."]


def _spread_advice(best: Blamed) -> list[str]:
    if _gain(best) < _WORTH_DB:
        return ["Leaving a few layers in float gains little here; try -r int8-accurate."]
    return [
        f"Most is gained with {_named(best)} in float: {_gain(best):.1f} dB.",
        *_advice([best]),
    ]


def _gain(layer: Blamed) -> float:
    return float("inf") if layer.gain_db is None else layer.gain_db


def _repaired(repair: Mapping[str, Any]) -> str:
    lifted = [str(name) for name in repair["lifted"]]
    if not lifted:
        return "The repair lifted no layer."
    shown = ", ".join(_short(printable(name)) for name in lifted[:_FEW])
    rest = f" and {len(lifted) - _FEW} more" if len(lifted) > _FEW else ""
    before, after = repair["before"], repair["after"]
    text = f"Repair lifted {shown}{rest} to float"
    if before.get("value") is not None and after.get("value") is not None:
        text += f": from {number(before['value'])} to {number(after['value'])}"
    if repair.get("kept_gain") is not None:
        text += f", keeping {percent(repair['kept_gain'])} of the time that INT8 saves"
    return f"{text}."


def _wasted(activation: Mapping[str, Any]) -> float:
    """The covered range over the range in which 99 % of the values lie, zero in both."""
    low, high = min(activation["low"], 0.0), max(activation["high"], 0.0)
    inner = max(activation["common_high"], 0.0) - min(activation["common_low"], 0.0)
    return (high - low) / inner if inner > 0 else 1.0


def _is_uneven(activation: Mapping[str, Any]) -> bool:
    spread, peak = activation["spread"], activation["median_peak"]
    return peak is not None and (spread is None or spread >= _UNEVEN)


def _known_db(part: Mapping[str, Any] | None) -> float:
    return float("inf") if part is None or part["db"] is None else float(part["db"])


def _named(each: Blamed) -> str:
    return f"{_short(each.name)} ({each.op})"


def _short(name: str) -> str:
    return shortened(name, _NAME)
