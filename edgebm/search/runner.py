"""A built artifact as a function from feeds to outputs, on the engine the device will use."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgebm.runtime.built import Built, bound, fill
from edgebm.runtime.engines import Request
from edgebm.search.candidates import Candidate, Face

Arrays = dict[str, NDArray[Any]]


def built(candidate: Candidate, face: Face) -> Built:
    """`candidate` as a device opens it."""
    artifact = candidate.artifact
    return Built(artifact.runtime, artifact.files, candidate.config, face.inputs, face.outputs)


class Runner:
    """One candidate, opened. A context manager; `run` copies in and out."""

    def __init__(self, candidate: Candidate, face: Face) -> None:
        self.face = face
        self.engine = built(candidate, face).open()
        self._requests: dict[tuple[tuple[int, ...], ...], Request] = {}

    def bound(self, feeds: Mapping[str, NDArray[Any]]) -> Request:
        """A request with these feeds written into its tensors."""
        shapes = tuple(feeds[spec.name].shape for spec in self.face.inputs)
        if shapes not in self._requests:
            if len(self._requests) >= 32:  # free axes: keep memory bounded
                self._requests.clear()
            self._requests[shapes] = bound(self.engine, self.face.inputs, feeds)
        request = self._requests[shapes]
        fill(request, self.face.inputs, feeds)
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
