"""Take out of each layer's bias what rounding adds to the mean of its output."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, ClassVar, Literal

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from pydantic import Field

from edgebm.errors import DataError
from edgebm.exec.shifts import output_shifts
from edgebm.ir.annotate import has_ranges, quant_of
from edgebm.ir.channels import Reader
from edgebm.ir.edit import const, input_at, set_const, sole_user
from edgebm.ir.model import Model
from edgebm.ir.moments import mean_of
from edgebm.ir.rescale import input_columns
from edgebm.ir.traits import weight_index
from edgebm.passes.base import Context, step
from edgebm.quant.params import fake_quantize

F64 = NDArray[np.float64]
_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")


@step
class CorrectBias:
    """Subtract from each bias the mean error that the layer's own rounding makes.

    `empirical` measures it on up to `samples` calibration samples, rounding of the input
    included, on the placement of the target; what chance explains is left alone. `analytic` needs
    none: the mean error is (q(W) - W) E[x], with E[x] from the BatchNormalization in front, whose
    output is taken as normal and cut by a ReLU. `auto` is the first where there are samples.

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
        if self.method == "empirical" and not given:
            raise DataError(
                "empirical bias correction needs calibration samples",
                hint="give them with -d, or use method: analytic",
            )
        empirical = given and self.method != "analytic" and has_ranges(model)
        shifts = self._measured(model, ctx) if empirical else self._expected(model, ctx)
        for node in model.nodes(*_LAYERS):
            shift = shifts.get(node.name or "?")
            if shift is None or not shift.any():
                continue
            if reason := _subtract(node, shift):
                ctx.skip(self, node.name, reason)
        return model

    def _measured(self, model: Model, ctx: Context) -> dict[str, F64]:
        assert ctx.samples is not None
        stride = -(-len(ctx.samples) // self.samples)
        total = -(-len(ctx.samples) // stride)
        feeds = islice(ctx.samples.feeds(), 0, None, stride)
        return output_shifts(ctx.lower(model), model, feeds, ctx.counter(self.kind, total))

    def _expected(self, model: Model, ctx: Context) -> dict[str, F64]:
        shifts = {}
        for node in model.nodes(*_LAYERS):
            params, weight = quant_of(node.inputs[1]), const(node.inputs[1])
            if params is None or weight is None or weight_index(node) != 1:
                continue
            mean = mean_of(node.inputs[0])
            if mean is None:
                ctx.skip(self, node.name, "no BatchNormalization in front tells its mean input")
                continue
            error = fake_quantize(weight, params).astype(np.float64) - weight
            columns = input_columns(Reader(node), len(mean), error)
            grouped = mean.reshape(columns.shape[0], -1)
            shifts[node.name or "?"] = np.einsum("goct,gc->go", columns, grouped).reshape(-1)
        return shifts


def _subtract(node: ir.Node, shift: F64) -> str:
    """Take `shift` [C] from the constant that is added to the output; or why there is none."""
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
