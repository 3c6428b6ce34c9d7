"""What no OpenVINO artifact may hold: as `onnx_faults`, for `model.xml`."""

from __future__ import annotations

from xml.parsers import expat

_CONTROL_FLOW = {"Loop", "TensorIterator", "If"}


class _Declaration(Exception):
    """A document type, which OpenVINO writes none of and whose entities hide what is meant."""


def openvino_faults(model: bytes) -> list[str]:
    """A sentence for each kind of thing in the XML file `model` that no artifact holds."""
    flows: set[str] = set()

    def begin(name: str, attributes: dict[str, str]) -> None:
        if name == "layer":
            flows.update({attributes.get("type", "")} & _CONTROL_FLOW)

    def refuse(*_: object) -> None:
        raise _Declaration

    parser = expat.ParserCreate()
    parser.StartElementHandler = begin
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(model, True)  # noqa: FBT003 - all of it; it takes no keyword
    except expat.ExpatError as cause:
        return [f"model.xml is no XML: {cause}"]
    except _Declaration:
        return ["model.xml has a document type"]
    return [f"model.xml has a layer {name}" for name in sorted(flows)]
