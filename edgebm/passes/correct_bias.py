"""Take out of each quantized layer's bias what rounding adds to the mean of its output."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.exec.compare import worst_gain_db
from edgebm.exec.shifts import output_shifts
from edgebm.ir.annotate import has_ranges, quant_of, set_shift
from edgebm.ir.bias import why_no_bias
from edgebm.ir.channels import Reader
from edgebm.ir.edit import const
from edgebm.ir.model import Model
from edgebm.ir.moments import mean_of
from edgebm.ir.rescale import input_columns
from edgebm.ir.traits import MATMULS, weight_index
from edgebm.passes.base import Context, spread_out, step
from edgebm.quant.params import fake_quantize

F64 = NDArray[np.float64]

_WORTH_DB = 0.1  # of the worst output: less is within what other samples would change


@step
class CorrectBias:
    """Find what each layer's own rounding adds to the mean of its output channels.

    Where a layer is lowered to integers its bias is less by that; where it stays float it is not.

    `empirical` measures it on up to `samples` calibration samples, rounding of the input
    included, on the placement of the target; what chance explains is left alone. Everything is
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
            self._leave(model, self._expected(model, ctx), ctx)
            return model
        return self._empirical(model, ctx)

    def _empirical(self, model: Model, ctx: Context) -> Model:
        samples, before = ctx.given("empirical bias correction"), model.clone()
        lowered = ctx.lower(model)
        others, few = spread_out(samples, self.samples // 2, first=1)
        feeds, total = spread_out(samples, self.samples)
        advance = ctx.counter(self.kind, total + few)
        self._leave(model, output_shifts(lowered, model, feeds, advance), ctx)
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

    def _leave(self, model: Model, shifts: dict[str, F64], ctx: Context) -> None:
        for node in model.nodes(*MATMULS):
            shift = shifts.get(node.name or "?")
            if shift is None or not shift.any():
                continue
            if reason := why_no_bias(node, len(shift)):
                ctx.skip(self, node.name, reason)
            else:
                set_shift(node.outputs[0], shift)


def _reads_axis_1(node: ir.Node) -> bool:
    """Whether it sums over axis 1 of its input, where the channels of a BatchNormalization lie."""
    value = node.inputs[0]
    return node.op_type.startswith("Conv") or (
        value is not None
        and value.shape is not None
        and len(value.shape) == 2
        and node.attributes.get_int("transA", 0) == 0
    )
