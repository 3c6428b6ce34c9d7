"""Measure candidates in turns (`runtime/turns.py`), and take from a journal what it knows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from edgebm.errors import BackendFailed, EdgebmError, ResourceError
from edgebm.runtime.turns import OPEN_BYTES, Measurement, Turn, Turns, timed_turn
from edgebm.search.candidates import Candidate
from edgebm.search.deadline import Deadline
from edgebm.search.records import Records
from edgebm.search.runner import Runner

_P99_TURN = "p99 turn"


class Race(Turns):
    """Candidates on the same sample, timed in turns.

    Turns that `records` knows are taken from there, with the time that they took: a race that
    was cut off goes on as if it had not been, and one that ended ends at the same turn.
    `run` and `earn_p99` raise OutOfTime when the time of the whole run is over; `results` has
    what was measured by then.
    """

    def __init__(
        self,
        candidates: Sequence[Candidate],
        records: Records,
        failed: Mapping[str, str],
        deadline: Deadline | None = None,
        kind: str = "turn",
    ) -> None:
        """`failed` holds what is known not to run, by `Candidate.answers_id`, and why.

        `deadline` is that of the next call; it may be set anew. Turns of another `kind` are
        measured anew.
        """
        known = {c.id: failed.get(c.answers_id, "") for c in candidates}
        super().__init__({key: Measurement(failed=why) for key, why in known.items()})
        self.candidates, self.records = list(candidates), records
        self.deadline = deadline or Deadline()
        self._kind = kind
        total = sum(2 * c.artifact.size_bytes for c in self.candidates)
        self._keep_open = total <= OPEN_BYTES
        self._open: dict[str, Runner] = {}

    def join(self, other: Race, after: Candidate) -> None:
        """Take over the candidates of a later race and its times; new ones follow `after`."""
        new = [c for c in other.candidates if c.id not in self.results]
        place = 1 + [c.id for c in self.candidates].index(after.id)
        self.candidates[place:place] = new
        self.results |= {key: found for key, found in other.results.items() if not found.dropped}
        self.results |= {c.id: other.results[c.id] for c in new}

    def _timed(self, name: str, turn: int, *, p99: bool) -> Turn:
        """One turn, measured now or before.

        Raises:
            EdgebmError: the candidate does not run.
            OutOfTime: it was not measured before, and there is no time to do it now.
        """
        candidate = next(c for c in self.candidates if c.id == name)
        kind = _P99_TURN if p99 else self._kind
        found = self.records.find(kind, candidate, turn=turn)
        if found is None:
            self.deadline.check()
            found = self._measure(candidate, p99=p99)
            self.records.keep(kind, candidate, found, turn=turn)
        if "failed" in found:
            raise BackendFailed(found["failed"])
        return Turn(**found)

    def _measure(self, candidate: Candidate, *, p99: bool) -> dict[str, Any]:
        try:
            return asdict(self._run(candidate, p99=p99))
        except ResourceError:
            raise  # another day there may be more memory
        except EdgebmError as error:
            return {"failed": str(error)}

    def _run(self, candidate: Candidate, *, p99: bool) -> Turn:
        def opened() -> Callable[[], None]:
            key = candidate.id
            if key not in self._open:
                self._open[key] = Runner(candidate, self.records.face)
            return self._open[key].bound(self.records.feeds).infer

        try:
            return timed_turn(opened, p99=p99)
        finally:
            if not self._keep_open:
                self._close(candidate.id)

    def _close(self, name: str) -> None:
        runner = self._open.pop(name, None)
        if runner is not None:
            runner.close()

    def _floats(self) -> Collection[str]:
        return [c.id for c in self.candidates if c.is_float_baseline]

    def _idle(self) -> Collection[str]:
        return [c.id for c in self.candidates if c.artifact.promise]
