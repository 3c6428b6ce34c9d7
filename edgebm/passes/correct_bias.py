"""Take out of each layer's bias what rounding adds to the mean of its output."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.exec.compare import worst_gain_db
from edgebm.exec.shifts import final_layers, final_shifts, output_shifts
from edgebm.ir.annotate import has_ranges, quant_of
from edgebm.ir.channels import Reader
from edgebm.ir.edit import const, input_at, set_const, sole_user
from edgebm.ir.model import Model
from edgebm.ir.moments import mean_of
from edgebm.ir.rescale import input_columns
from edgebm.ir.traits import MATMULS, is_plain_gemm, weight_index
from edgebm.passes.base import Context, Skip, spread_out, step
from edgebm.quant.params import fake_quantize

F64 = NDArray[np.float64]
_WORTH_DB = 0.1  # of the worst output: less is within what other samples would change


@step
class CorrectBias:
    """Subtract from each bias the mean error that the layer's own rounding makes.

    `empirical` measures it on up to `samples` calibration samples, rounding of the input
    included, on the placement of the target; what chance explains is left alone. For layers that
    write model outputs, what is then left of all layers' errors together is added. Everything is
    taken back where it does not bring the model's worst output nearer to the float one, on half
    as many other samples: errors of one sign may have cancelled those of the other.

    `analytic` needs no samples: the mean error is (q(W) - W) E[x], with E[x] from the
    BatchNormalization in front, whose output is taken as normal and cut by a ReLU. `auto` is
    empirical where there are samples and activations are quantized, and analytic elsewhere.

    Source:
        Nagel et al. 2019, "Data-free quantization", arXiv:1906.04721, section 4.2 and appendix C
        and D.
    """

    kind: Literal["correct_bias"] = "correct_bias"
    needs_samples: ClassVar[bool] = False
    method: Literal["auto", "empirical", "analytic"] = "auto"
    samples: Annotated[int, Field(ge=2)] = 64

    def __call__(self, model: Model, ctx: Context, /) -> Model:
        given = ctx.samples is not None and len(ctx.samples) > 0
        hint = "give them with -d, or use method: analytic"
        if self.method == "empirical":
            ctx.given("empirical bias correction", hint)
            if not has_ranges(model):
                ctx.skip(self, None, "no activation was quantized before it")
                return model
        if self.method == "analytic" or not (given and has_ranges(model)):
            self._subtract(model, self._expected(model, ctx), ctx)
            return model
        return self._empirical(model, ctx)

    def _empirical(self, model: Model, ctx: Context) -> Model:
        samples, before = ctx.given("empirical bias correction"), model.clone()
        lowered = ctx.lower(model)
        others, few = spread_out(samples, self.samples // 2, first=1)
        feeds, total = spread_out(samples, self.samples)
        last = final_layers(lowered)
        advance = ctx.counter(self.kind, (2 if last else 1) * total + few)
        self._subtract(model, output_shifts(lowered, model, feeds, advance), ctx)
        if last:
            feeds, _ = spread_out(samples, self.samples)
            self._subtract(model, final_shifts(ctx.lower(model), before, feeds, advance), ctx)
        gain = worst_gain_db(before, lowered, ctx.lower(model), others, advance)
        if gain >= _WORTH_DB:
            return model
        ctx.skip(self, None, f"the worst output gains {gain:.2f} dB by it, less than {_WORTH_DB}")
        return before

    def _expected(self, model: Model, ctx: Context) -> dict[str, F64]:
        shifts = {}
        for node in model.nodes(*MATMULS):
            params, weight = quant_of(node.inputs[1]), const(node.inputs[1])
            if params is None or weight is None or weight_index(node) != 1:
                continue
            mean = mean_of(node.inputs[0]) if _reads_axis_1(node) else None
            if mean is None:
                ctx.skip(self, node.name, "no BatchNormalization in front tells its mean input")
                continue
            error = fake_quantize(weight, params).astype(np.float64) - weight
            columns = input_columns(Reader(node), len(mean), error)
            grouped = mean.reshape(columns.shape[0], -1)
            shifts[node.name or "?"] = np.einsum("goct,gc->go", columns, grouped).reshape(-1)
        return shifts

    def _subtract(self, model: Model, shifts: dict[str, F64], ctx: Context) -> None:
        for node in model.nodes(*MATMULS):
            shift = shifts.get(node.name or "?")
            if shift is None or not shift.any():
                continue
            reason = _subtract(node, shift)
            if reason and Skip(self.kind, node.name or "?", reason) not in ctx.skips:
                ctx.skip(self, node.name, reason)


def _reads_axis_1(node: ir.Node) -> bool:
    """Whether it sums over axis 1 of its input, where the channels of a BatchNormalization lie."""
    value = node.inputs[0]
    return node.op_type.startswith("Conv") or (
        value is not None
        and value.shape is not None
        and len(value.shape) == 2
        and node.attributes.get_int("transA", 0) == 0
    )


def _subtract(node: ir.Node, shift: F64) -> str:
    """Take `shift` [C] from the constant that is added to the output; or why there is none."""
    if node.op_type == "Gemm" and not is_plain_gemm(node):
        return "a Gemm with alpha, beta or transA set scales its bias"
    owner, index = node, 2
    if node.op_type == "MatMul":
        user = sole_user(node.outputs[0])
        if user is None or user.op_type != "Add":
            return "no constant is added to its output"
        owner, index = user, 1 if user.inputs[0] is node.outputs[0] else 0
    value = input_at(owner, index)
    old = np.zeros(len(shift), np.float32) if value is None else const(value)
    if old is None or old.size not in (1, len(shift)) or (old.ndim and old.shape[-1] != old.size):
        return "what is added to its output is not one constant for each channel"
    set_const(owner, index, (old - shift).astype(np.float32), suffix="corrected")
    return ""
