"""A built artifact as a function from feeds to outputs, on the engine the device will use."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.runtime.engines import Request, open_engine
from edgebm.search.candidates import Candidate, Face

Arrays = dict[str, NDArray[Any]]


class Runner:
    """One candidate, opened. A context manager; `run` copies in and out."""

    def __init__(self, candidate: Candidate, face: Face) -> None:
        self.face = face
        self.engine = open_engine(
            candidate.artifact.runtime,
            candidate.artifact.files,
            candidate.config,
            face.inputs,
            face.outputs,
        )
        self._requests: dict[tuple[tuple[int, ...], ...], Request] = {}

    def bound(self, feeds: Mapping[str, NDArray[Any]]) -> Request:
        """A request with these feeds written into its tensors."""
        shapes = tuple(feeds[spec.name].shape for spec in self.face.inputs)
        if shapes not in self._requests:
            if len(self._requests) >= 32:  # free axes: keep memory bounded
                self._requests.clear()
            named = {spec.name: s for spec, s in zip(self.face.inputs, shapes, strict=True)}
            self._requests[shapes] = self.engine.request(named)
        request = self._requests[shapes]
        for buffer, spec in zip(request.inputs, self.face.inputs, strict=True):
            np.copyto(buffer, feeds[spec.name])
        return request

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> Arrays:
        """Outputs by name, owned by the caller."""
        request = self.bound(feeds)
        request.infer()
        return {
            spec.name: np.array(value)
            for spec, value in zip(self.face.outputs, request.outputs, strict=True)
        }

    def close(self) -> None:
        self._requests.clear()
        self.engine.close()

    def __enter__(self) -> Runner:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
