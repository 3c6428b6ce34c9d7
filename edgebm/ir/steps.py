"""One step of an LSTM, GRU or RNN, found from what a value computes.

Sources: Hochreiter & Schmidhuber 1997 with the forget gate of Gers et al. 2000 (LSTM), Cho et
al. 2014, arXiv:1406.1078 (GRU, reset before the product), cuDNN's form with the reset behind it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.ir.affine import NO_GATES, Expression, Form, Gate
from edgebm.ir.expressions import Reader
from edgebm.ir.parts import Part, whole

_LAST = {"LSTM": ("Mul",), "GRU": ("Add", "Sub"), "RNN": ("Tanh", "Relu")}


@dataclass(frozen=True, slots=True)
class Step:
    """What a step computes. `gates` are the affine maps in front of each gate, by ONNX's letters.

    A gate is missing, and a state None, where the state is zero: the first step of a loop. Which
    input of an LSTM or RNN is the state h is not said here: any could be.
    """

    op: str
    out: ir.Value
    gates: dict[str, Form]
    c: Part | None = None
    c_out: ir.Value | None = None
    h: Part | None = None
    behind_reset: Form | None = None
    """A GRU's product with h that the reset gate multiplies; None: the reset is before it."""
    activation: str = "Tanh"

    @property
    def width(self) -> int:
        return len(next(iter(self.gates.values())).bias)


def step_at(reader: Reader, node: ir.Node, op: str) -> Step | None:
    """The step of kind `op` whose new state h is what `node` writes, or None."""
    out = node.outputs[0]
    if node.op_type not in _LAST[op] or out.shape is None or len(out.shape) != 2:
        return None
    part = whole(out)
    if part is None or out.dtype != ir.DataType.FLOAT:
        return None
    return {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}[op](reader, part)


def _lstm(reader: Reader, part: Part) -> Step | None:
    """The step h' = o * tanh(c'), c' = f * c + i * g."""
    found = reader.read(part)
    pair = _pair(found, 1.0)
    if pair is None or len(found) != 1:
        return None
    o, squashed = pair
    new_c = squashed.part
    inner = dict(reader.read(new_c))
    pair = _pair(inner, 1.0)
    if pair is None or not new_c.is_whole:
        return None
    i, g = pair
    gates = {"i": i, "o": o, "c": g}
    del inner[frozenset(pair)]
    c = None
    if inner:
        (names, form), *rest = inner.items()
        c = _identity(form)
        if rest or len(names) != 1 or c is None:
            return None
        gates["f"] = next(iter(names))
        if gates["f"].op != "Sigmoid":
            return None
    forms = _maps(reader, gates)
    if forms is None:
        return None
    return Step("LSTM", part.value, forms, c, new_c.value)


def _pair(found: Expression, sign: float) -> tuple[Gate, Gate] | None:
    """The sigmoid and the tanh whose product, times `sign`, is a term."""
    for names, form in found.items():
        ops = {gate.op: gate for gate in names}
        constant = form.is_constant and (form.bias == np.float32(sign)).all()
        if len(names) == 2 and set(ops) == {"Sigmoid", "Tanh"} and constant:
            return ops["Sigmoid"], ops["Tanh"]
    return None


def _identity(form: Form, sign: float = 1.0) -> Part | None:
    """The one part that the form hands on as it is, times `sign`."""
    if form.products or form.bias.any() or len(form.direct) != 1:
        return None
    ((part, row),) = form.direct.items()
    return part if (row == np.float32(sign)).all() else None


def _maps(reader: Reader, gates: dict[str, Gate]) -> dict[str, Form] | None:
    """The affine map in front of each gate, if each is one of products and a bias."""
    found = {}
    for label, gate in gates.items():
        expression = reader.read(gate.part)
        form = expression.get(NO_GATES)
        if set(expression) != {NO_GATES} or form is None or form.direct or not form.products:
            return None
        found[label] = form
    return found


def _gru(reader: Reader, part: Part) -> Step | None:
    """The step h' = (1 - z) * n + z * h, also with z and 1 - z exchanged."""
    found = reader.read(part)
    flipped, pair = False, _pair(found, -1.0)
    if pair is None:
        flipped, pair = True, _pair(found, 1.0)
    if pair is None:
        return None
    z, n = pair
    state = {NO_GATES: 1.0, frozenset({z}): -1.0} if flipped else {frozenset({z}): 1.0}
    rest = {names: form for names, form in found.items() if names != frozenset(pair)}
    if not flipped:
        alone = rest.pop(frozenset({n}), None)
        if alone is None or not alone.is_constant or (alone.bias != 1).any():
            return None
    h = None
    if rest:
        if set(rest) != set(state):
            return None
        parts = {_identity(rest[names], sign) for names, sign in state.items()}
        h = parts.pop()
        if parts or h is None:
            return None
    update = _maps(reader, {"z": z})
    if update is None:
        return None
    # sigmoid(-a) = 1 - sigmoid(a)
    map_z = update["z"].scaled(np.float32(-1)) if flipped else update["z"]
    return _candidate(reader, part.value, {"z": map_z}, n, h)


def _candidate(
    reader: Reader, out: ir.Value, gates: dict[str, Form], n: Gate, h: Part | None
) -> Step | None:
    """With the two forms of n: tanh(x W + r * (h R + b)) and tanh(x W + (r * h) R + b)."""
    expression = dict(reader.read(n.part))
    outer = expression.pop(NO_GATES, None)
    if outer is None or outer.direct:
        return None
    if expression:
        (names, behind), *rest = expression.items()
        if rest or len(names) != 1 or behind.direct or set(behind.products) - {h}:
            return None
        if h is not None and h in outer.products:
            return None
        reset = next(iter(names))
        forms = _maps(reader, {"r": reset})
        if reset.op != "Sigmoid" or forms is None or not outer.products:
            return None
        return Step("GRU", out, gates | forms | {"h": outer}, h=h, behind_reset=behind)
    return _reset_before(reader, out, gates, outer, h)


def _reset_before(
    reader: Reader, out: ir.Value, gates: dict[str, Form], outer: Form, h: Part | None
) -> Step | None:
    products = dict(outer.products)
    forms: dict[str, Form] | None = {}
    for part in list(products):
        scaled = reader.read(part)
        if len(scaled) != 1 or part.value.producer() is None:
            continue
        ((names, form),) = scaled.items()
        reset = next(iter(names), None)
        if len(names) != 1 or reset is None or reset.op != "Sigmoid" or _identity(form) != h:
            continue
        if h is None or h in products:
            return None
        forms = _maps(reader, {"r": reset})
        products[h] = products.pop(part)
        break
    if forms is None or (h is not None and not forms):
        return None
    return Step("GRU", out, gates | forms | {"h": Form(outer.bias, products)}, h=h)


def _rnn(reader: Reader, part: Part) -> Step | None:
    """The step h' = tanh(x W + h R + b), or with relu."""
    found = reader.read(part)
    ((names, form),) = found.items() if len(found) == 1 else ((NO_GATES, None),)
    if len(names) != 1 or form is None or not form.is_constant or (form.bias != 1).any():
        return None
    gate = next(iter(names))
    forms = _maps(reader, {"i": gate})
    if gate.op == "Sigmoid" or forms is None:
        return None
    return Step("RNN", part.value, forms, activation=gate.op)
