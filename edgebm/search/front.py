"""What a recipe puts in front of a model's inputs: from then on it is a part of the model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from edgebm.data.frames import frame_layout
from edgebm.data.preprocess import Preprocess
from edgebm.data.sounds import sound_layout
from edgebm.errors import UsageError
from edgebm.ir.canonical import canonicalize
from edgebm.ir.edit import name
from edgebm.ir.face import dtype_name, face, set_layout
from edgebm.ir.front import ImageFront, take_frames, take_pcm
from edgebm.ir.model import Model
from edgebm.ir.states import find_states
from edgebm.ir.traits import is_float
from edgebm.recipe import Recipe

_COARSE = 2.0  # of that many pixels and more in a row, some are never looked at


@dataclass(frozen=True, slots=True)
class Front:
    """The model with what stands in front of it, and sentences about that."""

    model: Model
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def put_in_front(model: Model, recipe: Recipe) -> Front:
    """A copy that takes the bytes of a camera or a microphone, if the recipe wants that.

    Args:
        model: canonical; it stays as it is.
        recipe: its `preprocess` with `in_graph`, and its `audio`.

    Raises:
        UsageError: the model has no input that is meant, several that can be, or one of another
            dtype or shape.
        UnsupportedModel: the dtype or rank of an input is not known.
    """
    image, audio = recipe.preprocess, recipe.audio
    if image is not None and not image.in_graph:
        image = None
    if audio is not None and audio.dtype != "int16":
        audio = None
    if image is None and audio is None:
        return Front(model)
    face(model)  # of every input dtype and rank are known
    work, notes, warnings = model.clone(), [], []
    layouts: dict[str, str] = {}
    if image is not None:
        value = _meant(work, image.input, "preprocess", "of rank 4", lambda v: _rank(v) == 4)
        _check_image(value, image)
        label = name(value)
        take_frames(work, label, _image_front(image))
        layouts[label] = frame_layout(image.frame_color)
        notes.append(_image_note(label, image))
        warnings += _image_warnings(label, image)
    if audio is not None:
        others = set(layouts)
        value = _meant(work, audio.input, "audio", "of floats", lambda v: name(v) not in others)
        label = name(value)
        take_pcm(work, label)
        layouts[label] = sound_layout(audio.rate)
        notes.append(f"in front of '{label}': int16 numbers, divided by 32768")
    work = canonicalize(work)
    for value in work.graph.graph.inputs:
        if name(value) in layouts:
            set_layout(value, layouts[name(value)])
    return Front(work, tuple(notes), tuple(warnings))


def _meant(
    model: Model, wanted: str, key: str, what: str, fits: Callable[[ir.Value], bool]
) -> ir.Value:
    """The input that the recipe names, or the only float one that fits and is no state."""
    values = {name(value): value for value in model.graph.graph.inputs}
    if wanted and wanted not in values:
        raise UsageError(
            f"{key}.input: the model has no input '{wanted}'",
            hint=f"its inputs are {_listed(values)}",
        )
    if wanted and not is_float(values[wanted]):
        raise UsageError(
            f"{key}.input: '{wanted}' takes {_dtype(values[wanted])}, and what stands in front "
            "of it makes floats",
            hint=f"leave {key} out if the model takes these numbers itself",
        )
    if wanted and values[wanted].is_graph_output():
        raise UsageError(
            f"{key}.input: '{wanted}' is an output of the model, too, which would change",
            hint="export the model without that output",
        )
    if wanted:
        return values[wanted]
    inner = {label: v for label, v in values.items() if not v.is_graph_output()}
    found = {label: v for label, v in inner.items() if is_float(v) and fits(v)}
    if len(found) > 1:
        states = {pair.input for pair in find_states(model)}
        found = {label: v for label, v in found.items() if label not in states}
    if len(found) != 1:
        say = f"several inputs {what}: {_listed(found)}" if found else f"no input {what}"
        raise UsageError(
            f"{key}: the model has {say}; its inputs are {_listed(values)}",
            hint=f"name the one that is meant: {key}: {{..., input: NAME}}",
        )
    return next(iter(found.values()))


def _check_image(value: ir.Value, image: Preprocess) -> None:
    """Whether the input takes what comes out of the nodes: rank, channels, height and width."""
    wanted = (1, *image.shape)
    has = value.shape
    fits = has is not None and len(has) == 4
    if not fits or any(
        isinstance(dim, int) and dim != size
        for dim, size in zip(has[1:] if has else (), image.shape, strict=False)
    ):
        given = [dim if isinstance(dim, int) else str(dim.value or "?") for dim in has or ()]
        raise UsageError(
            f"preprocess makes pictures {list(wanted)} ({image.layout}, {image.color}) for the "
            f"input '{name(value)}', which takes {given}",
            hint="size is [height, width] of what the model takes; source that of the camera",
        )


def _image_front(image: Preprocess) -> ImageFront:
    channels = image.channels
    mean, std = (np.broadcast_to(np.array(v), channels) for v in (image.mean, image.std))
    return ImageFront(
        source=image.frames,
        cut=image.cut,
        size=image.size,
        swap=image.frame_color != image.color,
        scale=(1 / (255 * std)).astype(np.float32),
        shift=(-mean / std).astype(np.float32),
        nhwc=image.layout == "NHWC",
    )


def _image_note(label: str, image: Preprocess) -> str:
    high, wide = image.frames
    top, left, height, width = image.cut
    steps = [f"uint8 frames of {high}x{wide} ({image.frame_color}, NHWC)"]
    if (height, width) != image.frames:
        steps.append(f"the middle {height}x{width} from row {top} and column {left}")
    if (height, width) != image.size:
        steps.append(f"resized to {image.size[0]}x{image.size[1]} (bilinear, no antialiasing)")
    if image.frame_color != image.color:
        steps.append(f"turned into {image.color}")
    steps.append(f"(x / 255 - {_plain(image.mean)}) / {_plain(image.std)}")
    return f"in front of '{label}': {', '.join(steps)}"


def _image_warnings(label: str, image: Preprocess) -> list[str]:
    _, _, height, width = image.cut
    times = max(height / image.size[0], width / image.size[1])
    if times <= _COARSE:
        return []
    return [
        f"frames for '{label}' shrink {times:.3g} times without antialiasing: of {times:.3g} "
        "pixels in a row two count, and fine patterns may be seen where there are none. A camera "
        "mode nearer to the size of the model costs less, and loses less"
    ]


def _plain(numbers: tuple[float, ...]) -> str:
    if len(set(numbers)) == 1:
        return f"{numbers[0]:g}"
    return f"[{', '.join(f'{number:g}' for number in numbers)}]"


def _rank(value: ir.Value) -> int:
    return -1 if value.shape is None else len(value.shape)


def _dtype(value: ir.Value) -> str:
    return "?" if value.dtype is None else dtype_name(value.dtype)


def _listed(values: dict[str, ir.Value]) -> str:
    return ", ".join(f"'{label}' ({_dtype(value)})" for label, value in values.items()) or "none"
