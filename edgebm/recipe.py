"""Recipes: the steps of a compression and what they leave to measurement, as YAML."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter
from pydantic.dataclasses import dataclass

from edgebm.data.preprocess import Preprocess
from edgebm.data.sounds import Audio
from edgebm.data.texts import Texts
from edgebm.errors import RecipeError
from edgebm.passes.base import STRICT
from edgebm.passes.catalog import DECIDING, SHRINKING, AnyStep
from edgebm.yaml_file import YamlKind


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Repair:
    """How long to look for the fewest layers whose integers harm the outputs.

    `tries` sets of layers are built and scored at most.
    """

    tries: Annotated[int, Field(ge=1)] = 8


@dataclass(frozen=True, kw_only=True, config=STRICT)
class SparsitySearch:
    """How much of what steps name as `sparsity` is cut: settled by bisection on measurements.

    The first try cuts as much as the steps say; if that misses a limit, half of it, and so on.
    The model is trained in each of at most `tries`.
    """

    tries: Annotated[int, Field(ge=1)] = 3


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Recipe:
    """What to do with a model.

    `steps` run in this order. `precisions` are those in which layers that stay float may
    run; the target must have them too. `prefer` says which of those that keep the limits wins:
    the fastest, or the smallest (within a tenth of the smallest size the fastest).
    `accuracy` says what is asked for where the user sets no limit (`search/judge.py`): "strict"
    allows no loss that chance does not explain. `repair` lifts layers that harm the outputs to
    float where integers alone are not accurate enough; None leaves that. `explain` puts the
    blame of every layer in the report even if nothing had to be repaired. `sparsity_search` tries
    lesser amounts where cutting as much as the steps say costs too much; None does not.
    `subset_size` is how many samples calibrate. `preprocess` says how images become arrays, here
    or in the graph, `audio` the same of a microphone's int16 numbers, `text` how texts become
    token ids.
    Limits (accuracy, latency, size) belong to the command line: they are the user's, not the
    method's.
    """

    version: Literal[1]
    name: str = ""
    description: str = ""
    steps: tuple[AnyStep, ...]
    precisions: Annotated[tuple[Literal["f32", "bf16", "f16"], ...], Field(min_length=1)] = (
        "f32",
        "bf16",
        "f16",
    )
    prefer: Literal["latency", "size"] = "latency"
    accuracy: Literal["default", "strict"] = "default"
    repair: Repair | None = None
    explain: bool = False
    sparsity_search: SparsitySearch | None = None
    subset_size: Annotated[int, Field(ge=1)] = 300
    preprocess: Preprocess | None = None
    audio: Audio | None = None
    text: Texts = field(default_factory=Texts)

    def __post_init__(self) -> None:
        if len(set(self.precisions)) != len(self.precisions):
            raise ValueError("precisions lists a precision twice")
        if "f32" not in self.precisions:
            raise ValueError("precisions needs f32: the float model is what all are compared with")
        kinds = {step.kind for step in self.steps}
        if {"quantize_weights_only", "quantize_activations"} <= kinds:
            raise ValueError(
                "steps has quantize_weights_only and quantize_activations: integers are either "
                "multiplied in float or with integers; beside the latter use quantize_weights"
            )
        late = [step.kind for step in self.shrinking if step.kind in DECIDING]
        if late:
            raise ValueError(
                f"steps has {', '.join(late)} before {self.shrinking[-1].kind}: a model is made "
                "smaller and taught before it is decided how to quantize it"
            )

    @property
    def shrinking(self) -> tuple[AnyStep, ...]:
        """The steps up to the last that makes the model smaller, or teaches what was made so."""
        ends = [place for place, s in enumerate(self.steps, 1) if s.kind in SHRINKING]
        return self.steps[: max(ends, default=0)]

    @property
    def quantizing(self) -> tuple[AnyStep, ...]:
        """All other steps: those of a model that stays as large as it is."""
        return tuple(step for step in self.steps if step.kind not in SHRINKING)

    @property
    def needs_samples(self) -> bool:
        """Whether some step calibrates on samples."""
        return any(step.needs_samples for step in self.steps)

    def to_dict(self) -> dict[str, Any]:
        """Every key with its value, defaults included, in plain JSON types."""
        plain: dict[str, Any] = _ADAPTER.dump_python(self, mode="json")
        return plain


_ADAPTER = TypeAdapter(Recipe)
_KIND = YamlKind("recipe", "_recipes", "recipes", _ADAPTER, RecipeError)


def list_recipes() -> list[str]:
    """Names of the recipes that come along, sorted."""
    return _KIND.names()


def load_recipe(name_or_path: str | Path) -> Recipe:
    """A recipe by name, or from a YAML file of your own; its name is the file's if not given.

    Raises:
        RecipeError: no such recipe (the nearest name is suggested), or every fault of the
            file at once, each with its line.
    """
    path = _KIND.find(name_or_path)
    tree, raw = _KIND.parse(path)
    return _KIND.check(path, tree, {"name": path.stem, **raw})
