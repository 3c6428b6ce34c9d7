"""What samples tell before the work begins: what would make calibration or its proof worthless."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from edgebm.data.samples import Samples
from edgebm.ir.indices import index_limits
from edgebm.ir.model import Model

FEW = 32
_REPEATED = 0.1  # share of samples that repeat others


def index_faults(model: Model, *sets: Samples) -> Iterator[str]:
    """Row numbers outside their table: a runtime answers with rows that are not there."""
    limits, seen = index_limits(model), set()
    for samples in sets if limits else ():
        for name, limit in limits.items():
            low, high = samples.scan().ranges.get(name, (0, 0))
            if (low < 0 or high >= limit) and (samples.source, name) not in seen:
                seen.add((samples.source, name))
                yield (
                    f"{samples.source}: input '{name}' has indices from {low:.0f} to {high:.0f}, "
                    f"its table the rows 0 to {limit - 1}; "
                    "the samples may come from another tokenizer or vocabulary"
                )


def calibration_faults(samples: Samples) -> Iterator[str]:
    """Why ranges cannot be taken from these samples."""
    if len(samples) > 1 and samples.scan().distinct == 1:
        yield (
            f"{samples.source}: all {len(samples)} calibration samples are identical, which tells "
            "nothing about the ranges of others; give some like those the model will see"
        )


def calibration_warnings(samples: Samples) -> Iterator[str]:
    """What is poor about samples that calibrate."""
    count, distinct = len(samples), samples.scan().distinct
    if count < FEW:
        few = "1 sample calibrates" if count == 1 else f"{count} samples calibrate"
        yield (
            f"only {few}: values that others reach may be cut off; a few hundred typical ones "
            "are better (-d, --subset-size)"
        )
    repeated = count - distinct
    if distinct > 1 and repeated >= _REPEATED * count:
        yield (
            f"{repeated} of {count} calibration samples ({100 * repeated / count:.0f} %) repeat "
            "others and add nothing: leave them out, or give different ones"
        )


def overlap_warning(calibration: Samples, evaluation: Samples) -> str:
    """A sentence where samples of one set occur in the other, found by their hashes, or ""."""
    mine, others = calibration.scan().samples, evaluation.scan().samples
    shared = int(np.isin(mine, others).sum())
    if not shared:
        return ""
    flatters = "the score flatters what was fitted to them"
    if shared == len(mine) == len(others):
        return (
            f"the same {shared} samples calibrate and evaluate: {flatters}; "
            "give others to evaluate on with -e"
        )
    mend = "take them out of -d or of -e"
    if calibration.is_of(evaluation):
        mend = "leave out what is doubled in the file, or give samples with -e"
    some = f"all {shared}" if shared == len(mine) else f"{shared} of {len(mine)}"
    return f"{some} calibration samples are also evaluation samples: {flatters}; {mend}"
