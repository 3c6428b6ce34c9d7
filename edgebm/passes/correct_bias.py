"""Take out of each quantized layer's bias what rounding adds to the mean of its output."""

from __future__ import annotations

from itertools import islice
from typing import Annotated, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from edgebm.errors import DataError
from edgebm.exec.shifts import output_shifts
from edgebm.ir.annotate import has_ranges, quant_of, set_shift
from edgebm.ir.bias import why_no_bias
from edgebm.ir.channels import Reader
from edgebm.ir.edit import const
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
    """Find what each layer's own rounding adds to the mean of its output channels.

    Where a layer is lowered to integers its bias is less by that; where it stays float it is not.
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
            if reason := why_no_bias(node, len(shift)):
                ctx.skip(self, node.name, reason)
            else:
                set_shift(node.outputs[0], shift)
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
