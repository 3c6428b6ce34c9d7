"""What other tools do with a recurrent layer, of which most say nothing.

Seen with the versions named; the same question to a newer one may have another answer.
"""

from __future__ import annotations

from dataclasses import dataclass

_NNCF = "NNCF 3.4 on OpenVINO 2026.4"
_DYNAMIC = "ONNX Runtime 1.32 (quantize_dynamic)"
_STATIC = "ONNX Runtime 1.32 (quantize_static)"
_TENSORRT = "TensorRT 10 and 11"


@dataclass(frozen=True, slots=True)
class _Fact:
    """What `peer` does with a cell of `op`; None, or an empty op, stands for any."""

    peer: str
    does: str
    op: str = ""
    resets_after: bool | None = None
    constant_state: bool | None = None

    def holds(self, op: str, *, resets_after: bool, constant_state: bool) -> bool:
        return (
            self.op in {"", op}
            and self.resets_after in {None, resets_after}
            and self.constant_state in {None, constant_state}
        )


# NNCF: relative errors of one layer with unequal scales of input and state, and of W and R; a
# layer with linear_before_reset=1 is left out since github.com/openvinotoolkit/nncf/pull/2115.
# ONNX Runtime: github.com/microsoft/onnxruntime/issues/9796. TensorRT: its documentation.
_FACTS = (
    _Fact(
        _NNCF,
        "leaves it in f32 without a word: its initial state is a constant, and the rounding of "
        "a constant is folded away",
        "LSTM",
        constant_state=True,
    ),
    _Fact(
        _NNCF,
        "makes it INT8 with scales that the kernel does not have: a relative error of about 0.3, "
        "without a warning",
        "LSTM",
        constant_state=False,
    ),
    _Fact(
        _NNCF,
        "leaves it in float: its reset gate comes after the product (linear_before_reset=1, as "
        "PyTorch and Keras write every GRU)",
        "GRU",
        resets_after=True,
    ),
    _Fact(
        _NNCF,
        "leaves it in f32 without a word: its initial state is a constant, and the rounding of "
        "a constant is folded away",
        "GRU",
        resets_after=False,
        constant_state=True,
    ),
    _Fact(
        _NNCF,
        "makes it INT8 with scales that the kernel does not have: a relative error of 0.6 and "
        "more, without a warning",
        "GRU",
        resets_after=False,
        constant_state=False,
    ),
    _Fact(_NNCF, "leaves it in float without a word", "RNN"),
    _Fact(
        _DYNAMIC,
        "makes it INT8 if its weights are initializers; behind a Slice or Concat, where "
        "PyTorch's exporter puts them, it stays in float without a word",
        "LSTM",
    ),
    _Fact(_DYNAMIC, "leaves it in float without a word: it has no quantized GRU", "GRU"),
    _Fact(_DYNAMIC, "leaves it in float without a word: it has no quantized RNN", "RNN"),
    _Fact(_STATIC, "leaves it in float without a word, for every recurrent layer"),
    _Fact(_TENSORRT, "runs it as a loop in FP16 or FP32: there is no INT8 for it"),
)


def what_peers_do(
    op: str, *, resets_after: bool, direction: str, initial_state_is_constant: bool
) -> tuple[str, ...]:
    """One sentence per peer on what it would have done with a recurrent layer.

    Args:
        op: "LSTM", "GRU" or "RNN".
        resets_after: for a GRU, whether its linear_before_reset is 1.
        direction: "forward", "reverse" or "bidirectional". OpenVINO computes a bidirectional
            layer as two, each as one of its own would be.
        initial_state_is_constant: also true for one that is left out, which means zeros.

    Raises:
        ValueError: another op or direction.
    """
    if op not in {"LSTM", "GRU", "RNN"}:
        raise ValueError(f"'{op}' is no recurrent layer: LSTM, GRU or RNN")
    if direction not in {"forward", "reverse", "bidirectional"}:
        raise ValueError(f"a layer runs forward, reverse or bidirectional, not '{direction}'")
    constant = initial_state_is_constant
    found = [
        fact
        for fact in _FACTS
        if fact.holds(op, resets_after=resets_after, constant_state=constant)
    ]
    both = ", in both directions" if direction == "bidirectional" else ""
    return tuple(f"{fact.peer} {fact.does}{both if fact.peer == _NNCF else ''}." for fact in found)
