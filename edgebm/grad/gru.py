"""The GRU whose reset gate acts on the state before the product with R.

No runtime that torch calls has a kernel for it. All that does not wait for the step before is
therefore one product over all steps, backwards as well: the loops hold two small products each,
and no graph of single operations is recorded.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


class ResetBeforeGru(torch.autograd.Function):
    """States of a GRU (linear_before_reset=0) of T steps, N sequences and H units.

    With a = gates [T, N, 3 H] (z, r, h; everything of the inputs and the biases in it):

        z, r = sigmoid(a_zr[t] + h[t-1] R_zr')        n = tanh(a_h[t] + (r * h[t-1]) R_h')
        h[t] = (1 - z) * n + z * h[t-1]

    Args of `apply`: a, the state before the first step [N, H], and R [3 H, H].
    Returns: the states [T, N, H].

    Source:
        Cho et al. 2014, arXiv:1406.1078, section 2.3; ONNX operator GRU.
    """

    @staticmethod
    def forward(ctx: Any, given: Tensor, initial: Tensor, r: Tensor) -> Tensor:
        steps, batch, width = given.shape
        hidden = width // 3
        r_gates, r_state = r[: 2 * hidden].t().contiguous(), r[2 * hidden :].t().contiguous()
        states = given.new_empty(steps + 1, batch, hidden)
        states[0] = initial
        gates, reset = torch.empty_like(given), given.new_empty(steps, batch, hidden)
        for t in range(steps):
            h, now, into = states[t], given[t], gates[t]
            into[:, : 2 * hidden] = torch.addmm(now[:, : 2 * hidden], h, r_gates).sigmoid_()
            torch.mul(into[:, hidden : 2 * hidden], h, out=reset[t])
            new = torch.addmm(now[:, 2 * hidden :], reset[t], r_state).tanh_()
            into[:, 2 * hidden :] = new
            torch.lerp(new, h, into[:, :hidden], out=states[t + 1])
        ctx.save_for_backward(states, gates, reset, r)
        return states[1:].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, received: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        states, gates, reset, r = ctx.saved_tensors
        hidden = states.shape[2]
        before, (z, open_, new) = states[:-1], gates.split(hidden, 2)
        r_gates, r_state = r[: 2 * hidden], r[2 * hidden :]
        # What a change of h[t] does to the sums in front of each gate, for all steps at once.
        into_z = (before - new) * z * (1 - z)
        into_new = (1 - z) * (1 - new * new)
        into_reset = before * open_ * (1 - open_)
        sums = torch.empty_like(gates)
        back = torch.zeros_like(states[0])
        for t in range(len(gates) - 1, -1, -1):
            back = back + received[t]
            of_new = back * into_new[t]
            product = of_new @ r_state
            sums[t] = torch.cat([back * into_z[t], product * into_reset[t], of_new], 1)
            carried = torch.addcmul(back * z[t], product, open_[t])
            back = torch.addmm(carried, sums[t, :, : 2 * hidden], r_gates)
        flat = sums.flatten(0, 1)
        of_r = torch.cat(
            [
                flat[:, : 2 * hidden].t() @ before.flatten(0, 1),
                flat[:, 2 * hidden :].t() @ reset.flatten(0, 1),
            ]
        )
        return sums, back, of_r
