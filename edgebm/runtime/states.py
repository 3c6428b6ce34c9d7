"""The recurrent states of a model: which arrays are fed back, of what shape, from what start.

A free axis of a state is either *shared* with an input that is no state, such as the batch, or
*growing*, found in states only, such as the length of a key-value cache.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import BundleFormat, InputShape
from edgebm.runtime.checks import Face
from edgebm.runtime.values import ValueRules
from edgebm.spec import Dim, Manifest, StateSpec, TensorSpec

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class State:
    """One state: the face of its input, where it stands in the model, and how it begins.

    `initial` is None for zeros; else its free axes have size 1 or their own.
    """

    spec: TensorSpec
    output: str
    input_index: int
    output_index: int
    initial: Array | None


class States:
    """The states of a model, and what is left of its face without them.

    `inputs` and `outputs` are those that are no state, `face` has the rules for the former and
    `state_face` for states.
    """

    def __init__(
        self, manifest: Manifest, initial: Mapping[str, Array], rules: ValueRules
    ) -> None:
        names = [spec.name for spec in manifest.inputs]
        outputs = [spec.name for spec in manifest.outputs]
        fed = {state.input: state for state in manifest.states}
        made = {state.output for state in manifest.states}
        self.states = tuple(
            State(
                manifest.inputs[names.index(each.input)],
                each.output,
                names.index(each.input),
                outputs.index(each.output),
                initial.get(each.input),
            )
            for each in manifest.states
        )
        # The output that each input is fed back from.
        self.fed = {state.input: state.output for state in manifest.states}
        self.inputs = tuple(spec for spec in manifest.inputs if spec.name not in fed)
        self.outputs = tuple(spec for spec in manifest.outputs if spec.name not in made)
        self.axes = manifest.axes
        self.shared, self.growing = _axes(manifest)
        self._stored = self._stored_sizes()
        notes = {name: f"{name!r} is a state, which the stream itself holds" for name in fed}
        self.face = Face(_only(manifest, self.inputs), notes, rules, stepping=True)
        # A state that is not finite poisons every step behind it, whatever the rules.
        own = ValueRules(nonfinite="error", envelope="allow")
        kept = _only(manifest, tuple(state.spec for state in self.states))
        self.state_face = Face(kept, rules=own)

    def first_sizes(self, liked: Mapping[str, int]) -> dict[str, int]:
        """A size for each shared axis before a step settles it: the stored, liked or smallest."""
        return {
            axis: self._stored.get(axis, liked.get(axis, self.axes[axis][0]))
            for axis in self.shared
        }

    def start(self, sizes: Mapping[str, int]) -> tuple[Array, ...]:
        """New arrays with the initial values, for these sizes of the shared axes.

        Raises:
            InputShape: the stored values are for another size.
        """
        for axis, size in sizes.items():
            if (stored := self._stored.get(axis, size)) != size:
                raise InputShape(
                    f"{axis} is {size} in this step, the model's initial state is for {stored}",
                    hint="give the stream states of its own: reset(states)",
                    details={"axis": axis, "expected": stored, "got": size},
                )
        begin = {axis: self._stored.get(axis, self.axes[axis][0]) for axis in self.growing}
        return tuple(_begin(state, {**begin, **sizes}) for state in self.states)

    def sizes(self, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
        """The sizes of the shared axes in states of these shapes; {} for no shapes."""
        return _sizes([state.spec for state in self.states[: len(shapes)]], shapes, self.shared)

    def growing_sizes(self, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
        """The sizes of the growing axes in states of these shapes."""
        return _sizes([state.spec for state in self.states], shapes, self.growing)

    def input_sizes(self, shapes: Sequence[Sequence[int]]) -> dict[str, int]:
        """The sizes of the shared axes in inputs of these shapes."""
        return _sizes(self.inputs, shapes, self.shared)

    def input_shapes(
        self, shapes: Sequence[tuple[int, ...]], values: Sequence[Array]
    ) -> dict[str, tuple[int, ...]]:
        """The shape of every input of the model: these for what is no state, `values` for it."""
        own = {spec.name: shape for spec, shape in zip(self.inputs, shapes, strict=True)}
        fed = {s.spec.name: x.shape for s, x in zip(self.states, values, strict=True)}
        return {**own, **fed}

    def misfit(self, shapes: Sequence[tuple[int, ...]], sizes: Mapping[str, int]) -> str:
        """Why states cannot have these shapes where shared axes have `sizes`; "" if they can.

        A growing axis may have any size: whether it is too long is for the next step to say.
        """
        known = dict(sizes)
        for state, shape in zip(self.states, shapes, strict=True):
            dims = state.spec.shape
            fits = len(shape) == len(dims) and all(
                size == (known.setdefault(dim, size) if isinstance(dim, str) else dim)
                and (dim not in self.shared or _allowed(self.axes, dim, size))
                for dim, size in zip(dims, shape, strict=True)
            )
            if not fits:
                return f"{state.spec.name!r} is {list(shape)}, expected {list(dims)}"
        return ""

    def _stored_sizes(self) -> dict[str, int]:
        """The free axes on which a stored state has a size of its own."""
        found: dict[str, set[int]] = {}
        for state in self.states:
            if state.initial is None:
                continue
            for dim, size in zip(state.spec.shape, state.initial.shape, strict=True):
                spread = size == 1 and dim in self.shared
                if isinstance(dim, str) and not spread and size >= self.axes[dim][0]:
                    found.setdefault(dim, set()).add(size)
        if unequal := {dim: sorted(sizes) for dim, sizes in found.items() if len(sizes) > 1}:
            raise BundleFormat(f"the initial states have different sizes of one axis: {unequal}")
        return {dim: sizes.pop() for dim, sizes in found.items()}


def _sizes(
    specs: Sequence[TensorSpec], shapes: Sequence[Sequence[int]], axes: Sequence[str]
) -> dict[str, int]:
    return {
        dim: size
        for spec, shape in zip(specs, shapes, strict=True)
        for dim, size in zip(spec.shape, shape, strict=True)
        if isinstance(dim, str) and dim in axes
    }


def _begin(state: State, sizes: Mapping[str, int]) -> Array:
    shape = tuple(sizes[dim] if isinstance(dim, str) else dim for dim in state.spec.shape)
    if state.initial is None:
        return np.zeros(shape, state.spec.dtype)
    filled: Array = np.broadcast_to(state.initial, shape).copy()
    return filled


def state_faults(manifest: Manifest) -> Iterable[str]:
    """What is wrong with the states of a manifest, one sentence each."""
    inputs = {spec.name: spec for spec in manifest.inputs}
    outputs = {spec.name: spec for spec in manifest.outputs}
    for kind in ("input", "output"):
        times = Counter(str(getattr(state, kind)) for state in manifest.states)
        for name in sorted(name for name, count in times.items() if count > 1):
            yield f"the {kind} {name!r} is given for two states"
    if manifest.states and not inputs.keys() - {state.input for state in manifest.states}:
        yield "every input is a state: nothing is left to step on"
    for state in manifest.states:
        where = f"the state {state.input!r} from {state.output!r}"
        if state.input not in inputs or state.output not in outputs:
            yield f"{where} is no input and output"
        else:
            yield from _pair_faults(manifest, inputs[state.input], outputs[state.output], where)
        if state.initial and state.initial not in manifest.members:
            yield f"{where}: its initial value {state.initial!r} is no member"


def check_initial(manifest: Manifest, state: StateSpec, array: Array, where: str) -> None:
    """Refuse a stored initial state that cannot be one.

    Raises:
        BundleFormat: another dtype or shape than the manifest says, NaN or infinity.
    """
    spec = next(spec for spec in manifest.inputs if spec.name == state.input)
    fits = array.dtype == np.dtype(spec.dtype) and array.ndim == len(spec.shape)
    if not fits or not all(
        (size == 1 and isinstance(dim, str)) or _allowed(manifest.axes, dim, size)
        for dim, size in zip(spec.shape, array.shape, strict=True)
    ):
        raise BundleFormat(
            f"{where} is {array.dtype}{list(array.shape)}, the state is {spec}",
            hint="its free axes have size 1 or a size in their range",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise BundleFormat(f"{where}: an initial state has values that are NaN or infinite")


def _allowed(axes: Mapping[str, tuple[int, int]], dim: Dim, size: int) -> bool:
    low, high = axes[dim] if isinstance(dim, str) else (dim, dim)
    return low <= size <= high


def _axes(manifest: Manifest) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The free axes of states: those shared with other inputs, and those that grow."""
    fed = {state.input for state in manifest.states}
    own, theirs = (
        dict.fromkeys(
            dim
            for spec in manifest.inputs
            if (spec.name in fed) is is_state
            for dim in spec.shape
            if isinstance(dim, str)
        )
        for is_state in (True, False)
    )
    return tuple(a for a in own if a in theirs), tuple(a for a in own if a not in theirs)


def _pair_faults(
    manifest: Manifest, fed: TensorSpec, made: TensorSpec, where: str
) -> Iterable[str]:
    if fed.dtype != made.dtype:
        yield f"{where} goes in as {fed.dtype} and comes out as {made.dtype}"
    shapes = f"{list(fed.shape)} goes in and {list(made.shape)} comes out"
    if len(fed.shape) != len(made.shape):
        yield f"{where} changes its rank: {shapes}"
        return
    shared, _ = _axes(manifest)
    for taken, given in zip(fed.shape, made.shape, strict=True):
        if not _agree(manifest, taken, given, is_shared=taken in shared):
            yield f"{where} changes its shape: {shapes}"
            return


def _agree(manifest: Manifest, taken: Dim, given: Dim, *, is_shared: bool) -> bool:
    """A name of the output that no input has is a size that is known at run time only."""
    if isinstance(taken, int):
        return taken == given or (isinstance(given, str) and given not in manifest.axes)
    if isinstance(given, str):
        return taken == given or not is_shared or given not in manifest.axes
    low, high = manifest.axes.get(taken, (0, -1))
    return not is_shared and low <= given <= high


def _only(manifest: Manifest, inputs: tuple[TensorSpec, ...]) -> Manifest:
    names = {spec.name for spec in inputs}
    limits = {name: rows for name, rows in manifest.index_limits.items() if name in names}
    return replace(manifest, inputs=inputs, index_limits=limits, states=())
