"""`--state in:out`: pairs that the user names, checked all at once."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Collection, Iterator, Sequence

from edgebm.errors import UsageError
from edgebm.ir.states import StatePair, pair_faults
from edgebm.spec import TensorSpec

NONE = "none"
GivenPair = str | tuple[str, str]


def given_states(
    given: Sequence[GivenPair], inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[StatePair, ...]:
    """The pairs in `given`, each `in:out` or (in, out); `["none"]` and nothing mean no state.

    Raises:
        UsageError: every name that does not exist, pair that does not fit and name given twice.
    """
    if not given or list(given) == [NONE]:
        return ()
    split = [_split(each, inputs, outputs) for each in given]
    pairs = [each for each in split if isinstance(each, tuple)]
    taken = {a for a, _ in pairs}
    faults = [fault for each in split for fault in _faults(each, inputs, outputs, taken)]
    for side, names in (("input", [a for a, _ in pairs]), ("output", [b for _, b in pairs])):
        faults += [
            f"{side} '{each}' is given twice" for each, n in Counter(names).items() if n > 1
        ]
    if not faults and all(spec.name in taken for spec in inputs):
        faults.append(
            "every input would be a state, and no step could be fed: leave out the pair of the "
            "input that is new at each step"
        )
    if faults:
        raise UsageError(
            "--state: " + "; ".join(faults),
            hint=f"the inputs are {'; '.join(map(str, inputs))}. The outputs are "
            f"{'; '.join(map(str, outputs))}. '--state none' means that there is no state",
        )
    return tuple(StatePair(a, b, "given") for a, b in pairs)


def _split(
    given: GivenPair, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec]
) -> tuple[str, str] | str:
    """The two names, or the text if it is no pair. Names may have colons of their own."""
    if not isinstance(given, str):
        return given
    at = [k for k, letter in enumerate(given) if letter == ":"]
    cuts = [(given[:k], given[k + 1 :]) for k in at if given[:k] and given[k + 1 :]]
    ins, outs = ({spec.name for spec in side} for side in (inputs, outputs))
    known = [cut for cut in cuts if cut[0] in ins and cut[1] in outs]
    half = [cut for cut in cuts if cut[0] in ins or cut[1] in outs]
    return next(iter([*known, *half, *cuts]), given)


def _faults(
    pair: tuple[str, str] | str,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    states: Collection[str],
) -> Iterator[str]:
    if isinstance(pair, str):
        yield f"'{pair}' does not read as INPUT:OUTPUT"
        return
    found = []
    for side, label, specs in (("input", pair[0], inputs), ("output", pair[1], outputs)):
        spec = next((each for each in specs if each.name == label), None)
        if spec is None:
            yield f"there is no {side} '{label}'{_near(label, specs)}"
        else:
            found.append(spec)
    if len(found) == 2:
        for fault in pair_faults(found[0], found[1], inputs, states):
            yield f"{fault}: they are no pair"


def _near(label: str, specs: Sequence[TensorSpec]) -> str:
    near = difflib.get_close_matches(label, [spec.name for spec in specs], 1)
    return f"; did you mean '{near[0]}'?" if near else ""
