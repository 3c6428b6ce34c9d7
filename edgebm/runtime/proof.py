"""What is known of where a bundle comes from; what checks it is imported on demand."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgebm.runtime.bundle import Bundle, read_bundle
from edgebm.runtime.container import SIGNATURE

if TYPE_CHECKING:
    from edgebm.runtime.signature import Statement
    from edgebm.runtime.trust import Trust

PathLike = str | os.PathLike[str]


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of where a bundle comes from; `statements` are the valid ones, by our keys."""

    bundle: Bundle
    statements: tuple[Statement, ...] = ()
    trust: Trust | None = None

    @property
    def release(self) -> int:
        """The highest that a trusted key gave it."""
        return max(each.release for each in self.statements)

    def facts(self) -> dict[str, Any]:
        """`signature` ("valid", "not checked", "not signed", "malformed"), `signed_by`, `release`.

        `claimed_by` are the keys that the file names, and no proof of anything.
        """
        facts = _claims(self.bundle)
        if self.trust is None:
            return facts
        # Each signature counts by itself, and so it does until the last of them ends.
        ends = [each.expires for each in self.statements]
        return facts | {
            "signature": "valid",
            "signed_by": [each.key for each in self.statements],
            "release": self.release,
            "expires": max(ends) if all(ends) else None,
        }

    def accept(self) -> None:
        """Note the release as accepted: after the self-test, never before.

        Raises:
            BundleRollback: another process has accepted a higher one meanwhile.
            UsageError: it cannot be noted.
        """
        if self.trust is not None and self.trust.releases is not None:
            from edgebm.runtime.releases import accept_release

            path, name = Path(self.trust.releases), self.bundle.manifest.name
            accept_release(path, name, self.release, allow_downgrade=self.trust.allow_downgrade)


def wanted_trust(trust: Trust | PathLike | Sequence[PathLike] | None) -> Trust | None:
    """What the argument `trust` of `edgebm.load` means.

    Raises:
        UsageError: it names no key, or is no path.
    """
    if trust is None:
        return None
    from edgebm.runtime.trust import Trust

    return trust if isinstance(trust, Trust) else Trust(trust)


def read_trusted(path: PathLike, trust: Trust | None) -> Proof:
    """Read and verify a bundle, and its signatures if `trust` is given.

    Raises:
        BundleUntrusted: it is not as a trusted key signed it; `details["cause"]` is one word.
        BundleRollback: it is older than one accepted before.
        BundleError, ResourceError: as `read_bundle`.
        UsageError: no such file, or what `trust` names cannot be used.
        BackendUnavailable: the package `cryptography` is missing.
    """
    if trust is None:
        return Proof(read_bundle(path))
    from edgebm.runtime.trust import prove

    return prove(path, trust)


def _claims(bundle: Bundle) -> dict[str, Any]:
    """What a bundle says of its own signatures, while nobody has checked it."""
    nothing: dict[str, Any] = {"signed_by": [], "claimed_by": [], "release": None, "expires": None}
    if (raw := bundle.members.get(SIGNATURE)) is None:
        return {"signature": "not signed", **nothing}
    from edgebm.runtime.signature import claimed

    keys = claimed(bytes(raw))
    if keys is None:
        return {"signature": "malformed", **nothing}
    return {"signature": "not checked", **nothing, "claimed_by": keys}
