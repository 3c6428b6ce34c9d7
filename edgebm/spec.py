"""What both halves share: the face of a model and the manifest of a bundle.

Standard library and numpy only. The manifest is written by the host and read on the
device, so every field here is part of the bundle format (`docs/reference/bundle.md`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from edgebm.errors import BundleFormat, BundleIncompatible

MANIFEST_VERSION = 1
Dim = int | str
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One input or output of the source model.

    `dtype` is a numpy name. `shape` holds an int for a fixed axis and a name for a free
    one; `Manifest.axes` gives the sizes that name may take. `layout` is a note for people:
    "NHWC RGB", "NHWC BGR" or "NHWC gray" of an input that takes the bytes of a camera, "PCM" of
    one that takes those of a microphone ("PCM 16000 Hz" where the rate is known), else "".
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...]
    layout: str = ""

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> TensorSpec:
        """Build from parsed JSON."""
        shape = tuple(d if isinstance(d, str) else int(d) for d in raw["shape"])
        return cls(str(raw["name"]), str(raw["dtype"]), shape, str(raw["layout"]))

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}[{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, slots=True)
class StateSpec:
    """A recurrent state: `output` of one call is `input` of the next.

    `initial` is the bundle member that holds the state before the first call, an array whose
    free axes have size 1 or their own; empty for zeros.
    """

    input: str
    output: str
    initial: str = ""


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """How a runtime is asked to run an artifact.

    `precision` is what float layers run in: "f32", "bf16" or "f16"; integer layers are in the
    artifact itself. `threads` 0 means the runtime's choice and is never written to a bundle.
    `static_shapes` are shape sets that get a compiled copy of their own beside the free one.
    `settings` are vendor options by the vendor's own names. `axes` has the smallest, the usual
    and the largest size of each free axis of an input, for runtimes that compile for a range.
    """

    precision: str = "f32"
    threads: int = 1
    static_shapes: tuple[Shapes, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
    axes: Mapping[str, tuple[int, int, int]] = field(default_factory=dict)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> EngineConfig:
        """Build from parsed JSON, in which `axes` may be missing."""
        shapes = tuple(
            {name: tuple(map(int, shape)) for name, shape in each.items()}
            for each in raw["static_shapes"]
        )
        axes = {
            name: (int(low), int(usual), int(high))
            for name, (low, usual, high) in raw.get("axes", {}).items()
        }
        return cls(**{**raw, "static_shapes": shapes, "axes": axes})


@dataclass(frozen=True, slots=True)
class Variant:
    """One built artifact for one target.

    `files` are bundle members below `variants/<target>/<runtime>/`, by the short name the
    engine knows ("model.onnx"; "model.xml" and "model.bin"). `precision` names the whole
    candidate for people ("int8", "int8+bf16", "f32"). `requires` are CPU features
    (`runtime/cpu.py` words) without which the artifact gives other answers or does not run.
    `tolerance` is, per output, the largest relative error of the self-test:
    `norm(got - golden) / norm(golden)`. `layers` counts executed layers by precision as the
    host saw them, and `cells` has what each recurrent layer ran in there.
    """

    target: str
    runtime: str
    precision: str
    files: Mapping[str, str]
    config: EngineConfig
    runtime_version: str
    requires: tuple[str, ...] = ()
    tolerance: Mapping[str, float] = field(default_factory=dict)
    layers: Mapping[str, int] = field(default_factory=dict)
    cells: Mapping[str, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """What no other candidate of a bundle is called: "target/runtime/precision/t<threads>"."""
        return f"{self.target}/{self.runtime}/{self.precision}/t{self.config.threads}"


@dataclass(frozen=True, slots=True)
class Member:
    """Hash and size of one file in the bundle."""

    sha256: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything the device must know before it touches a vendor runtime.

    `axes` maps the name of a free axis to the sizes allowed, both ends included.
    `index_limits` maps an integer input to the number of rows of the table it indexes.
    `golden` counts the golden samples: `golden/<i>/inputs/<k>.npy` and `.../outputs/<k>.npy`,
    k in the order of `inputs` and `outputs`. `ranges` holds the [low, high] of each float
    input over the calibration samples. `candidates` is everything that was tried, the variants
    among them, where that is to be measured on another machine; one runs only if it is asked for
    by its whole name. `provenance` is for people and audits: hashes of model and data, recipe,
    seed, versions.
    """

    name: str
    edgebm_version: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    variants: tuple[Variant, ...]
    states: tuple[StateSpec, ...] = ()
    axes: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    index_limits: Mapping[str, int] = field(default_factory=dict)
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    golden: int = 0
    constraints_met: bool = True
    members: Mapping[str, Member] = field(default_factory=dict)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    candidates: tuple[Variant, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types; `from_dict` is its inverse.

        `candidates`, and `axes` of a variant, are left out where there are none.
        """
        raw = {"manifest_version": MANIFEST_VERSION, **asdict(self)}
        for variant in (*raw["variants"], *raw["candidates"]):
            if not variant["config"]["axes"]:
                del variant["config"]["axes"]
        if not self.candidates:
            del raw["candidates"]
        return raw

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> Manifest:
        """Build from parsed JSON.

        Raises:
            BundleIncompatible: written by an edgebm with another manifest version.
            BundleFormat: a field is missing, unknown or of another type.
        """
        cls.check_version(raw)
        try:
            return _manifest({k: v for k, v in raw.items() if k != "manifest_version"})
        except (KeyError, TypeError, ValueError, AttributeError) as cause:
            raise BundleFormat(f"manifest.json is not as it must be: {cause}") from cause

    @staticmethod
    def check_version(raw: Mapping[str, Any]) -> None:
        """Refuse a manifest of another version before its fields are judged by these rules.

        Raises:
            BundleIncompatible: names both versions.
        """
        version = raw.get("manifest_version")
        if version != MANIFEST_VERSION:
            raise BundleIncompatible(
                f"the bundle has manifest_version {version!r}, "
                f"this edgebm reads {MANIFEST_VERSION}",
                hint="compress the model again, or install the edgebm that made the bundle",
            )


def _manifest(raw: dict[str, Any]) -> Manifest:
    raw["inputs"] = tuple(TensorSpec.from_dict(t) for t in raw["inputs"])
    raw["outputs"] = tuple(TensorSpec.from_dict(t) for t in raw["outputs"])
    raw["variants"] = tuple(_variant(dict(v)) for v in raw["variants"])
    raw["candidates"] = tuple(_variant(dict(v)) for v in raw.get("candidates", ()))
    raw["states"] = tuple(StateSpec(**s) for s in raw["states"])
    raw["axes"] = {k: (int(low), int(high)) for k, (low, high) in raw["axes"].items()}
    raw["ranges"] = {k: (float(low), float(high)) for k, (low, high) in raw["ranges"].items()}
    raw["index_limits"] = {k: int(v) for k, v in raw["index_limits"].items()}
    raw["golden"] = int(raw["golden"])
    members = raw["members"].items()
    raw["members"] = {k: Member(str(m["sha256"]), int(m["size"])) for k, m in members}
    return Manifest(**raw)


def _variant(raw: dict[str, Any]) -> Variant:
    raw["config"] = EngineConfig.from_dict(raw["config"])
    raw["requires"] = tuple(map(str, raw["requires"]))
    return Variant(**raw)
