"""The host-side model: an ONNX graph and where it came from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx_ir as ir
from numpy.typing import NDArray

from edgebm.errors import ModelError

PROTOBUF_LIMIT_BYTES = 2**31 - 1


@dataclass(slots=True)
class Model:
    """A thin holder. Algorithms are passes, never methods of this class."""

    graph: ir.Model
    source: str = ""

    @classmethod
    def load(cls, path: Path) -> Model:
        """Read an ONNX file as it is. `edgebm.importers.import_model` also checks it."""
        try:
            return cls(ir.load(path), source=str(path))
        except Exception as cause:
            raise ModelError(f"{path} is not a readable ONNX model: {cause}") from cause

    @classmethod
    def parse(cls, text: str, **weights: NDArray[Any]) -> Model:
        """Read ONNX text syntax; names it does not define come from `weights`."""
        tensors = [ir.tensor(array, name=name) for name, array in weights.items()]
        return cls(ir.from_onnx_text(text, initializers=tensors), source="<text>")

    def clone(self) -> Model:
        """Copy nodes and values. Weight arrays stay shared, so treat them as read-only."""
        return Model(self.graph.clone(), self.source)

    def nodes(self, *op_types: str) -> Iterator[ir.Node]:
        """Nodes of the main graph in order, of these types or of any."""
        for node in self.graph.graph:
            if not op_types or node.op_type in op_types:
                yield node

    def weights_bytes(self) -> int:
        """Bytes of all initializers. One array under two names counts twice, as in a file."""
        tensors = [value.const_value for value in self.graph.graph.initializers.values()]
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def param_count(self) -> int:
        """Numbers in the floating-point initializers. An array under two names counts once."""
        tensors = [value.const_value for value in self.graph.graph.initializers.values()]
        floats = {id(t): t for t in tensors if t is not None and t.dtype.is_floating_point()}
        return sum(int(tensor.size) for tensor in floats.values())

    def to_bytes(self) -> bytes:
        """Serialize as an ONNX file: equal models give equal bytes.

        Raises:
            ModelError: it does not fit in one protobuf message (2 GiB).
        """
        size = self.weights_bytes()
        if size >= PROTOBUF_LIMIT_BYTES:
            raise ModelError(
                f"{self.source or 'the model'} has {size / 2**30:.1f} GiB of weights; "
                "one ONNX file holds less than 2",
                hint="edgebm is made for models below 2 GiB",
            )
        try:
            data: bytes = ir.serde.serialize_model(self.graph).SerializeToString(
                deterministic=True
            )
        except ValueError as cause:
            raise ModelError(
                f"{self.source or 'the model'} cannot be serialized: {cause}"
            ) from cause
        return data
