"""Classes and enums cut down to the names of one version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

ENUMS: dict[str, Any] = {}
VERSION = ""


class Member:
    """A member of an enum: it has a name and a number, and no order."""

    def __init__(self, owner: str, name: str, number: int) -> None:
        self._owner, self.name, self.value = owner, name, number

    def __int__(self) -> int:
        return self.value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and (self._owner, self.value) == (
            other._owner,
            other.value,
        )

    def __hash__(self) -> int:
        return hash((self._owner, self.value))

    def __repr__(self) -> str:
        return f"<{self._owner}.{self.name}: {self.value}>"


class Sealed:
    """A class whose objects have the members of the real one, and none beside."""

    _members: Mapping[str, Mapping[str, Any]] = {}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_") and name not in type(self)._members:
            raise AttributeError(f"{type(self).__name__} of {VERSION} has no attribute {name!r}")
        return object.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        if not name.startswith("_"):
            member = type(self)._members.get(name)
            if member is None or not member.get("settable"):
                raise AttributeError(f"{type(self).__name__}.{name} cannot be set in {VERSION}")
        object.__setattr__(self, name, value)


class Interface:
    """A class to be derived from, whose own `__init__` must be called."""

    def __init__(self) -> None:
        self.__dict__["_is_made"] = True


def made(thing: Any, kind: type) -> Any:
    """`thing`, which must be a proper object of an interface."""
    if not isinstance(thing, kind) or "_is_made" not in thing.__dict__:
        raise TypeError(f"{thing!r} is no {kind.__name__}, or its __init__ was not called")
    return thing


class Names:
    """The table of one version."""

    def __init__(self, table: Mapping[str, Any]) -> None:
        global VERSION  # noqa: PLW0603 - one version for each process
        VERSION = table["version"]
        self._classes = table["classes"]

    def classes(self, behaviours: Iterable[type]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for name, each in self._classes.items():
            if each["kind"] == "enum":
                members = {k: Member(name, k, number) for k, number in each["values"].items()}
                ENUMS[name] = type(name.rpartition(".")[2], (), members)
                if "." not in name:
                    found[name] = ENUMS[name]
        for behaviour in behaviours:
            name = behaviour.__name__
            members = self._classes[name]["members"]
            if issubclass(behaviour, Sealed):
                unknown = {k for k in vars(behaviour) if not k.startswith("_")} - members.keys()
                for extra in unknown:
                    delattr(behaviour, extra)
                behaviour._members = members
            found[name] = behaviour
        for name, each in self._classes.items():
            if each["kind"] == "class" and "." not in name and name not in found:
                found[name] = type(name, (Sealed,), {"_members": each["members"]})
        severity = ENUMS["ILogger.Severity"]
        found["ILogger"].Severity = severity
        for name in self._classes["ILogger.Severity"]["values"]:
            setattr(found["ILogger"], name, getattr(severity, name))
        return found
