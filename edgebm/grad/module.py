"""An ONNX graph as a torch module: the same names, the same answers, and gradients."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx_ir as ir
import torch
from torch import Tensor, nn

from edgebm.errors import UnsupportedModel, UsageError
from edgebm.grad.ops import bind
from edgebm.grad.plan import Node, Plan
from edgebm.grad.planner import Planner
from edgebm.grad.tensors import HELD_DTYPES, TORCH_DTYPES, to_array, to_tensor
from edgebm.ir.edit import const, name, replace_const
from edgebm.ir.learned import learned
from edgebm.ir.model import Model

Tensors = Mapping[str, Tensor]
_QDQ = frozenset({"QuantizeLinear", "DequantizeLinear"})


class _Origin:
    """The model that a module was made from; it is never changed, so copies share it."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __deepcopy__(self, _: object) -> _Origin:
        return self


class GraphModule(nn.Module):
    """Values are computed by name: `module({"x": x}, ["y"])["y"]`.

    The floating-point weights of layers are parameters (`ir/learned.py` says which those are),
    all else are buffers; with `trainable` those are parameters whose name it says yes to.
    `weights` gives them by the names of the graph. The model is not changed: `to_model` gives one
    with the trained weights.

    A new module is in eval mode, unlike others of torch: it answers as the graph does. After
    `module.train()` a BatchNormalization takes the moments of the batch, and its running ones
    follow; nothing else changes.

    Whatever reads a value named in `taps` reads `taps[name](value)` in its place: gates, noise,
    rounding. They may be added and taken away at any time.
    """

    def __init__(self, model: Model, trainable: Callable[[str], bool] | None = None) -> None:
        """Copy the weights of a canonical model.

        Raises:
            UnsupportedModel: every op without a gradient here and every weight of a dtype
                that torch does not compute with, before anything is copied.
        """
        super().__init__()
        graph = model.graph.graph
        bound = bind(graph, model.source)
        _check_dtypes(model)
        self._origin = _Origin(model.clone())
        self.inputs = tuple(name(value) for value in graph.inputs)
        self.outputs = tuple(name(value) for value in graph.outputs)
        self._attributes: dict[str, str] = {}
        self.taps: dict[str, Callable[[Tensor], Tensor]] = {}
        chosen = learned(model).__contains__ if trainable is None else trainable
        for label, value in graph.initializers.items():
            array = const(value)
            assert array is not None
            self._hold(label, to_tensor(array), trainable=chosen(label))
        nodes = [Node.of(node, bound[node]) for node in graph]
        self._planner = Planner(nodes, set(self.weights) - set(self.trained), self.weights)
        self._plans: dict[tuple[object, ...], Plan] = {}
        self.eval()

    def _hold(self, label: str, tensor: Tensor, *, trainable: bool) -> None:
        # Dots are no part of an attribute's name in torch, nor may it hide a method.
        attribute = "w:" + label.replace("%", "%25").replace(".", "%2E")
        self._attributes[label] = attribute
        if trainable and tensor.is_floating_point():
            self.register_parameter(attribute, nn.Parameter(tensor))
        else:
            self.register_buffer(attribute, tensor)

    @property
    def weights(self) -> dict[str, Tensor]:
        """Parameters and buffers by the names of the graph's initializers."""
        return {label: getattr(self, held) for label, held in self._attributes.items()}

    def to_model(self) -> Model:
        """A copy of the model it was made from, with the weights and running moments of now.

        `edgebm` takes it wherever it takes a model, and `to_model().to_bytes()` is an ONNX file.
        """
        model = self._origin.model.clone()
        write_back(self, model)
        return model

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """The parameters by the names of the graph's initializers."""
        return {k: held for k, held in self.weights.items() if isinstance(held, nn.Parameter)}

    def forward(self, feeds: Tensors, fetch: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Values by name; the graph's outputs where `fetch` is None.

        Args:
            feeds: inputs by name. Any other value may be given too: what only it needs is
                then not computed.
            fetch: inputs, outputs, weights or values between nodes.

        Raises:
            UsageError: names that the graph does not have, or inputs that are missing; all.
        """
        wanted = tuple(self.outputs if fetch is None else fetch)
        key = (wanted, frozenset(feeds), frozenset(self.taps), self.training)
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = self._planner.plan(wanted, *key[1:])
        values = {label: getattr(self, self._attributes[label]) for label in plan.constants}
        values.update(feeds)
        values.update({k: tap(values[k]) for k, tap in self.taps.items() if k in values})
        values.update(plan.copies)
        for step in plan.steps:
            got = step.compute(*[None if r is None else values[r] for r in step.reads])
            outputs = (got,) if isinstance(got, Tensor) else got
            for label, value in zip(step.writes, outputs, strict=False):
                # A value that was given stays as given.
                if label and label not in feeds:
                    values[label] = self._tapped(label, value)
            for label in step.spent:
                values.pop(label, None)
        return {label: plan.handed_out(label, values[label]) for label in wanted}

    def _tapped(self, label: str, value: Tensor) -> Tensor:
        tap = self.taps.get(label)
        return value if tap is None else tap(value)


def _is_held(value: ir.Value, dtype: ir.DataType) -> bool:
    """Whether torch computes with it, or it is only dequantized."""
    stored = all(use.node.op_type in _QDQ for use in value.uses())
    return dtype in TORCH_DTYPES or (stored and dtype in HELD_DTYPES)


def _check_dtypes(model: Model) -> None:
    faults = [
        f"weight '{label}' is {value.dtype.name.lower()}"
        for label, value in model.graph.graph.initializers.items()
        if value.dtype is not None and not _is_held(value, value.dtype)
    ]
    if faults:
        raise UnsupportedModel(
            f"{model.source or 'the model'} cannot be trained: torch has no arithmetic for these; "
            + "; ".join(faults),
            details={"faults": faults},
        )


@torch.no_grad()
def write_back(module: GraphModule, model: Model) -> list[str]:
    """Put the floating-point weights of `module` into `model`, in place, under their names.

    Parameters, and buffers as well: running moments follow in training. A weight that is bit for
    bit what the model has stays the array it is, with what was decided on it; a changed one is a
    new array.

    Returns:
        The names of the weights that are new.

    Raises:
        UsageError: the model lacks a weight of the module, or has it in another shape; all.
    """
    held = model.graph.graph.initializers
    floats = {k: tensor for k, tensor in module.weights.items() if tensor.is_floating_point()}
    found = {label: const(held.get(label)) for label in floats}
    faults = [
        f"'{label}' is {list(tensor.shape)} in the module and "
        f"{'missing' if array is None else list(array.shape)} in the model"
        for label, tensor in floats.items()
        if (array := found[label]) is None or array.shape != tuple(tensor.shape)
    ]
    if faults:
        raise UsageError(f"the module was made from another model: {'; '.join(faults)}")
    changed = []
    for label, tensor in floats.items():
        old = found[label]
        assert old is not None
        new = to_array(tensor, old.dtype)
        if new.tobytes() != old.tobytes():
            replace_const(held[label], new)
            changed.append(label)
    return changed
