"""Every pass a recipe can name. Adding a pass is one import and one line here."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edgebm.passes.choose_ranges import ChooseRanges
from edgebm.passes.correct_bias import CorrectBias
from edgebm.passes.distill import Distill
from edgebm.passes.drop_blocks import DropBlocks
from edgebm.passes.equalize_channels import EqualizeChannels
from edgebm.passes.fold_batchnorm import FoldBatchNorm
from edgebm.passes.gptq import Gptq
from edgebm.passes.gru_reset_before import GruResetBefore
from edgebm.passes.learn_rounding import LearnRounding
from edgebm.passes.prune import Prune
from edgebm.passes.qat import Qat
from edgebm.passes.quantize_activations import QuantizeActivations
from edgebm.passes.quantize_recurrent import QuantizeRecurrent
from edgebm.passes.quantize_weights import QuantizeWeights
from edgebm.passes.quantize_weights_only import QuantizeWeightsOnly
from edgebm.passes.recognize_cells import RecognizeCells
from edgebm.passes.smooth_activations import SmoothActivations
from edgebm.passes.sparsify_2_4 import Sparsify24
from edgebm.passes.split_directions import SplitDirections

# Steps that make a model smaller, or teach one that was made so: the original is their teacher.
SHRINKING = frozenset({"prune", "drop_blocks", "sparsify_2_4", "distill"})
# Steps that decide how to quantize: they come after those.
DECIDING = frozenset(
    {"quantize_weights", "quantize_activations", "quantize_recurrent", "quantize_weights_only"}
)

AnyStep = Annotated[
    RecognizeCells
    | SplitDirections
    | Distill
    | FoldBatchNorm
    | DropBlocks
    | Prune
    | Sparsify24
    | GruResetBefore
    | EqualizeChannels
    | SmoothActivations
    | QuantizeWeights
    | QuantizeActivations
    | QuantizeRecurrent
    | ChooseRanges
    | CorrectBias
    | LearnRounding
    | Qat
    | QuantizeWeightsOnly
    | Gptq,
    Field(discriminator="kind"),
]
