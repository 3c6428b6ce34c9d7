"""What a load does where a runtime takes minutes to build its engine and none is stored."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from edgebm.errors import UsageError
from edgebm.runtime.engines.building import BUILD_S, Building

When = Literal["never", "wait", "background"]
_WHEN = ("never", "wait", "background")


@dataclass(frozen=True, slots=True)
class BuildRules:
    """Whether and how `edgebm.load` builds an engine that takes minutes.

    Attributes:
        when: "never": not at load. "wait": load builds it. "background": the next target of a
            list answers, and the session goes over to the new engine when it is proved.
        limit_s: seconds after which the build is ended.
        workspace_bytes: the most scratch memory that a layer may have on the device; None: what
            the runtime thinks is right.
        progress: `progress(phase, done, total)` is called on the thread that waits for the build.
    """

    when: When = "wait"
    limit_s: float = BUILD_S
    workspace_bytes: int | None = None
    progress: Callable[[str, int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.when not in _WHEN:
            raise UsageError(f"build is {self.when!r}, not one of {', '.join(_WHEN)}")
        if type(self.limit_s) not in {int, float} or not self.limit_s > 0:
            raise UsageError(f"limit_s must be a number of seconds above 0, not {self.limit_s!r}")
        size = self.workspace_bytes
        if size is not None and (type(size) is not int or size < 1):
            raise UsageError(f"workspace_bytes must be 1 or more, not {size!r}")

    def building(self) -> Building:
        """A build by these rules that somebody waits for."""
        return Building(self.limit_s, self.workspace_bytes, self.progress)


Wanted = When | BuildRules


def wanted_build(build: Wanted) -> BuildRules:
    """What the argument `build` of `edgebm.load` means.

    Raises:
        UsageError: it is none of the three words and no `BuildRules`.
    """
    return build if isinstance(build, BuildRules) else BuildRules(build)
