"""Teach a changed model by what it was made from."""

from __future__ import annotations

import importlib.util
import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import Field
from pydantic.dataclasses import dataclass as checked

from edgebm.errors import BackendUnavailable, DataError
from edgebm.ir.landmarks import attentions
from edgebm.ir.model import Model
from edgebm.passes.base import STRICT, Context, step

if TYPE_CHECKING:
    from edgebm.grad.teaching import Teaching

Way = Literal["flip", "shift", "cutout", "mixup", "noise", "gain", "time_shift"]
Share = Annotated[float, Field(ge=0)]
_MINUTES = 10.0
# The highest rate, by what the model is made of.
_RECURRENT_RATE, _ATTENTION_RATE, _RATE = 2e-3, 4e-4, 1e-3
_FACTORS = (1.0, 1 / 4, 1 / 16)
_ENDLESS = 1_000_000  # steps, before the time is known that one of them takes


@checked(frozen=True, kw_only=True, config=STRICT)
class Losses:
    """How much each part of the loss counts; 0 leaves it out."""

    outputs: Share = 1.0
    features: Share = 1.0
    attention: Share = 0.0
    relations: Share = 0.0
    labels: Share = 0.0


@step
class Distill:
    """Train the model's weights until it answers as the teacher does, the model before any step.

    No labels are needed. Outputs are compared as what they are: `outputs` says it, "auto" takes
    rows that add up to 1 for probabilities and rows of length 1 for embeddings, compares other
    outputs of rank 2 and 3 both as logits and by their error, and all else by its error. Values
    between blocks that both graphs have by name are compared too, every second of them;
    `features` names others.

    The shortest of `minutes`, `steps` and `epochs` ends it; without any, ten minutes. A plan by
    minutes is made once, from what a few steps take, so its result depends on the machine. The
    last fifth of the samples is held out: the weights that do best there are kept.

    `augment` changes samples by chance before both see them: images (float inputs of rank 4) by
    "flip", "shift" and "cutout", signals by "gain" and "time_shift", any float input by "mixup"
    and "noise". Ids that are padded, as a mask input says, are cut to the longest of each batch of
    like length, where that is proved to change nothing; `trim_padding: off` leaves them.

    `rate` is the highest learning rate; "auto" is 2e-3 for recurrent models, 4e-4 for ones with
    attention, else 1e-3, and a quarter or a sixteenth of that where a few steps make the model
    worse than it began. Embedding tables stay as they are, and so do the zeros of
    weights that were made sparse.
    """

    kind: Literal["distill"] = "distill"
    needs_samples: ClassVar[bool] = True
    minutes: Annotated[float, Field(gt=0)] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    epochs: Annotated[float, Field(gt=0)] | None = None
    batch: Annotated[int, Field(ge=1)] = 64
    rate: Annotated[float, Field(gt=0)] | Literal["auto"] = "auto"
    weight_decay: Share = 0.0
    optimizer: Literal["adamw", "sgd"] = "adamw"
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    temperature: Annotated[float, Field(gt=0)] = 2.0
    losses: Losses = Losses()
    outputs: Literal["auto", "logits", "embedding", "values"] = "auto"
    features: tuple[str, ...] | None = None
    patience: Annotated[int, Field(ge=0)] = 0
    augment: tuple[Way, ...] = ()
    trim_padding: Literal["auto", "off"] = "auto"
    precision: Literal["auto", "f32", "bf16"] = "auto"

    @property
    def planned_s(self) -> float:
        """About how many seconds it trains; given steps or epochs may end it earlier."""
        return 60 * (_MINUTES if self.minutes is None else self.minutes)

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        needs_torch()
        if ctx.teacher is None:
            raise DataError(
                "the step distill has no teacher", hint="run it in a recipe, behind others"
            )
        samples = ctx.training or ctx.given("teaching a model")
        from edgebm.grad.distill import Conditions, distill
        from edgebm.grad.identity import Kept
        from edgebm.grad.world import joined

        def progress(done: int, total: int) -> None:
            ctx.progress(self.kind, done, total)

        kept = None if ctx.checkpoint is None else Kept(ctx.checkpoint, own_name=True)
        with joined() as world:
            found = distill(
                model, ctx.teacher, samples, self.teaching(model, ctx.seed),
                conditions=Conditions(world, self.precision, kept), progress=progress,
            )  # fmt: skip
        for node, reason in found.left_out:
            ctx.skip(self, node, reason)
        fitted = found.fitted
        ctx.notes.append(
            f"taught by the original for {fitted.steps} steps on {len(samples)} samples: its loss "
            f"on those held out fell from {fitted.before:.4g} to {fitted.best:.4g}"
        )
        ctx.notes.extend(found.notes)
        return model

    def teaching(self, model: Model, seed: int) -> Teaching:
        """The same in the words of the library."""
        from edgebm.grad.schedule import Schedule
        from edgebm.grad.teaching import Teaching, Weights

        unbounded = self.minutes is self.steps is self.epochs is None
        minutes = _MINUTES if unbounded else self.minutes
        schedule = Schedule(
            self.steps or _ENDLESS,
            rate_for(model) if self.rate == "auto" else self.rate,
            weight_decay=self.weight_decay,
            check_every="auto",
            patience=self.patience,
            shape=self.schedule,
            optimizer=self.optimizer,
            budget_s=math.inf if minutes is None else 60 * minutes,
            factors=_FACTORS if self.rate == "auto" else (1.0,),
        )
        losses = self.losses
        return Teaching(
            schedule,
            batch=self.batch,
            epochs=self.epochs,
            temperature=self.temperature,
            weights=Weights(
                losses.outputs, losses.features, losses.attention, losses.relations, losses.labels
            ),
            outputs=self.outputs,
            features=self.features,
            augment=self.augment,
            trim_padding=self.trim_padding == "auto",
            seed=seed,
        )


def needs_torch() -> None:
    """Refuse to train where torch is not installed.

    Raises:
        BackendUnavailable: it is not.
    """
    if importlib.util.find_spec("torch") is None:
        raise BackendUnavailable(
            "teaching a student needs torch, which is not installed",
            hint="pip install 'edgebm[train]'",
        )


def rate_for(model: Model) -> float:
    """The highest learning rate that models of this family are trained with."""
    if any(True for _ in model.nodes("LSTM", "GRU", "RNN")):
        return _RECURRENT_RATE
    return _ATTENTION_RATE if attentions(model) else _RATE
