"""A model with state as a function of whole sequences: the state goes from step to step."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.errors import DataError
from edgebm.ir.states import StatePair, growing_axes
from edgebm.spec import TensorSpec

Feeds = Mapping[str, NDArray[Any]]
Answers = dict[str, NDArray[Any]]
Run = Callable[[Answers], Answers]


@dataclass(frozen=True, slots=True)
class States:
    """The states of a model, and where each begins.

    `inputs` are all of the model's. `initial` holds arrays for states that do not begin at zero,
    with free axes of size 1 or their own. `axes` has the smallest and largest size of each axis
    that grows with the steps; a state without an initial value begins with the smallest.
    """

    inputs: tuple[TensorSpec, ...]
    pairs: tuple[StatePair, ...]
    initial: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    axes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    @property
    def names(self) -> frozenset[str]:
        """Inputs that hold a state."""
        return frozenset(pair.input for pair in self.pairs)

    @property
    def outputs(self) -> frozenset[str]:
        """Outputs that hold a state."""
        return frozenset(pair.output for pair in self.pairs)

    @property
    def growing(self) -> frozenset[str]:
        """Free axes that only states have, such as the length of a cache."""
        return growing_axes(self.inputs, list(self.names))

    def begin(self, step: Feeds) -> Answers:
        """Every state before the first step; `step` is fed then and tells the batch size."""
        sizes = {
            dim: size
            for spec in self.inputs
            if spec.name in step and spec.name not in self.names
            for dim, size in zip(spec.shape, step[spec.name].shape, strict=False)
        }
        begun = {}
        for spec in (each for each in self.inputs if each.name in self.names):
            given = step.get(spec.name, self.initial.get(spec.name))
            shape = tuple(
                dim if isinstance(dim, int) else sizes.get(dim, self._size(dim, axis, given))
                for axis, dim in enumerate(spec.shape)
            )
            if given is None:
                begun[spec.name] = np.zeros(shape, spec.dtype)
            else:
                begun[spec.name] = np.array(np.broadcast_to(given, shape))
        return begun

    def _size(self, dim: str, axis: int, given: NDArray[Any] | None) -> int:
        return self.axes.get(dim, (1, 1))[0] if given is None else given.shape[axis]

    def is_sequence(self, feeds: Feeds) -> bool:
        """Whether the arrays have one axis more than a step: [T, ...]."""
        return any(
            feeds[spec.name].ndim == len(spec.shape) + 1
            for spec in self.inputs
            if spec.name in feeds and spec.name not in self.names
        )


def walk(run: Run, states: States, feeds: Feeds) -> Iterator[tuple[Answers, Answers]]:
    """(feeds, outputs) of each step; the state outputs of one are the state inputs of the next.

    Args:
        run: the model, one step.
        states: its states.
        feeds: arrays [T, ...] for inputs that are no states; states may be given, as they are
            before the first step.

    Raises:
        DataError: the arrays differ in T, or a state comes back in a form that cannot be fed.
    """
    fed = {key: array for key, array in feeds.items() if key not in states.names}
    counts = {key: len(array) for key, array in fed.items()}
    if len(set(counts.values())) != 1 or not min(counts.values()):
        raise DataError(
            f"the steps of a sequence differ in number, or there are none: {counts}",
            hint="give every input that is no state as an array [steps, ...]",
        )
    given = {key: array for key, array in feeds.items() if key in states.names}
    specs = {spec.name: spec for spec in states.inputs}
    now: Answers = {}
    for step in range(next(iter(counts.values()))):
        arrays = {key: array[step] for key, array in fed.items()}
        now = now or states.begin({**arrays, **given})
        arrays = {spec.name: {**arrays, **now}[spec.name] for spec in states.inputs}
        answers = run(arrays)
        yield arrays, answers
        now = {pair.input: answers[pair.output] for pair in states.pairs}
        for pair in states.pairs:
            _check(now[pair.input], specs[pair.input], pair, states, step)


def _check(
    array: NDArray[Any], spec: TensorSpec, pair: StatePair, states: States, step: int
) -> None:
    fixed = len(array.shape) == len(spec.shape) and all(
        isinstance(dim, str) or dim == size
        for dim, size in zip(spec.shape, array.shape, strict=True)
    )
    if not fixed or array.dtype != np.dtype(spec.dtype):
        raise DataError(
            f"output '{pair.output}' is {array.dtype}{list(array.shape)} after step {step}, which "
            f"cannot be fed to {spec}",
            hint=f"'{pair.input}:{pair.output}' is no pair, or the cache is full: a fixed axis "
            "bounds the steps",
        )
    for dim, size in zip(spec.shape, array.shape, strict=True):
        if isinstance(dim, str) and dim in states.axes and size > states.axes[dim][1]:
            raise DataError(
                f"state '{pair.input}' has {size} on the axis '{dim}' after step {step}, and at "
                f"most {states.axes[dim][1]} are allowed",
                hint="give a larger size with --shapes, or shorter sequences",
            )


def carried(run: Run, states: States) -> Run:
    """The model as a function of single steps and of sequences.

    A single step gets the states that it is given, and initial ones for the others. For arrays
    with one axis more, [T, ...], the state is carried, and the answers are [T, ...] too; those
    that are states are as after the last step. Without other outputs, states count as such.
    """

    def call(feeds: dict[str, NDArray[Any]]) -> Answers:
        if not states.is_sequence(feeds):
            return run({**states.begin(feeds), **feeds})
        kept: dict[str, list[NDArray[Any]]] = {}
        last: Answers = {}
        for _, last in walk(run, states, feeds):
            hidden = states.outputs if last.keys() - states.outputs else frozenset()
            for key, array in last.items():
                if key not in hidden:
                    kept.setdefault(key, []).append(array)
        return {**last, **{key: _stack(key, arrays) for key, arrays in kept.items()}}

    return call


def _stack(key: str, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
    shapes = {array.shape for array in arrays}
    if len(shapes) > 1:
        raise DataError(
            f"output '{key}' has another shape at each step: {sorted(shapes)[:2]} ...",
            hint="say with --state which input it belongs to, or export the model without it",
        )
    return np.stack(arrays)


def settle_growth(run: Run, states: States, step: Feeds, largest: Mapping[str, int]) -> States:
    """The states with the smallest size of each growing axis that the model takes: 0, or else 1.

    Args:
        run: the float model, one step.
        states: whose `axes` are not known yet.
        step: what is fed first.
        largest: sizes that the growing axes may reach.

    Raises:
        DataError: the model takes neither.
    """
    if not states.growing:
        return states
    refused = ""
    for size in (0, 1):
        tried = replace(states, axes={dim: (size, largest[dim]) for dim in states.growing})
        try:
            for _ in walk(run, tried, {key: np.stack([a, a]) for key, a in step.items()
                                       if key not in tried.names}):  # fmt: skip
                pass
        except DataError as fault:
            refused = str(fault)
        else:
            return tried
    raise DataError(
        f"the model takes no state of size 0 or 1 on {', '.join(sorted(states.growing))}: "
        f"{refused}",
        hint="name the batch axis of states like that of the inputs, or give --initial-state",
    )
