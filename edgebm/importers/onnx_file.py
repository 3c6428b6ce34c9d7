"""ONNX files: what the bytes are, and weights stored beside them."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx_ir as ir

from edgebm.errors import ModelError
from edgebm.importers.structure import check_structure
from edgebm.ir.model import PROTOBUF_LIMIT_BYTES, Model

_EXPORT_HINT = (
    "give an .onnx, .pt2 or .keras file, a SavedModel folder, or module:function that returns the "
    "model"
)


def read_onnx(path: Path) -> Model:
    """Read an ONNX file and everything it refers to, into memory.

    Raises:
        ModelError: it is not there, not ONNX (the message says what it looks like), damaged, or
            its external data is missing, too short or outside the model's own folder.
    """
    if path.is_dir():
        raise ModelError(f"{path} is a folder; a model file is wanted", hint=_EXPORT_HINT)
    if path.exists() and not path.is_file():
        raise ModelError(f"{path} is not a regular file", hint=_EXPORT_HINT)
    try:
        data = path.read_bytes()
    except FileNotFoundError as cause:
        raise ModelError(f"no such model file: {path}", hint=_EXPORT_HINT) from cause
    except OSError as cause:
        raise ModelError(
            f"{path} cannot be read: {cause.strerror or cause}", hint="check its permissions"
        ) from cause
    if path.suffix == ".py":
        raise ModelError(
            f"{path} is a Python file", hint=f"name its function that makes the model: {path}:NAME"
        )
    if looks := _looks_like(data):
        what, hint = looks
        raise ModelError(f"{path} is not an ONNX model: {what}", hint=hint)
    if len(data) > PROTOBUF_LIMIT_BYTES:
        raise ModelError(
            f"{path} has {len(data) / 2**30:.1f} GiB; one ONNX file holds less than 2",
            hint="edgebm is made for models below 2 GiB",
        )
    try:
        proto = onnx.load_model_from_string(data)
    except Exception as cause:
        raise ModelError(
            f"{path} is not an ONNX model, or is truncated ({len(data)} bytes)",
            hint="compare its size with the original and copy it again",
        ) from cause
    return from_proto(proto, label=str(path), folder=path.parent)


def from_proto(proto: onnx.ModelProto, *, label: str, folder: Path | None = None) -> Model:
    """A live protobuf model. Without `folder`, weights stored in other files are refused."""
    check_structure(proto, label)
    try:
        model = ir.from_proto(proto)
    except Exception as cause:
        raise ModelError(
            f"{label} is not valid ONNX: {_root(cause)}", hint="export the model again"
        ) from cause
    _load_initializers(model, label, folder)
    _load_attributes(model, label, folder)
    return Model(model, source=label)


def _root(error: BaseException) -> BaseException:
    """What went wrong first: onnx_ir wraps each level of the graph in an error of its own."""
    deeper = error.__cause__ or error.__context__
    return error if deeper is None or isinstance(error, ValueError) else _root(deeper)


def _load_initializers(model: ir.Model, label: str, folder: Path | None) -> None:
    for graph in model.graphs():
        for value in graph.initializers.values():
            if isinstance(value.const_value, ir.ExternalTensor):
                value.const_value = _load_external(value.const_value, label, folder)


def _load_attributes(model: ir.Model, label: str, folder: Path | None) -> None:
    nodes = list(model.graph.all_nodes())
    for function in model.functions.values():
        nodes += function.all_nodes()
    for node in nodes:
        for attribute in list(node.attributes.values()):
            if isinstance(attribute.value, ir.ExternalTensor):
                loaded = _load_external(attribute.value, label, folder)
                node.attributes[attribute.name] = ir.AttrTensor(attribute.name, loaded)


def _load_external(
    tensor: ir.ExternalTensor, label: str, folder: Path | None
) -> ir.TensorProtocol:
    where = f"{label}: weight '{tensor.name}' is stored in '{tensor.location}'"
    if folder is None:
        raise ModelError(where, hint="load the external data first: onnx.load(path)")
    root = folder.resolve()
    path = (root / tensor.location).resolve()
    if Path(tensor.location).is_absolute() or not path.is_relative_to(root):
        raise ModelError(
            f"{where}, outside the model's own folder", hint="keep both files in one folder"
        )
    if not path.is_file():
        raise ModelError(f"{where}, which is not there", hint=f"copy it to {path.parent}")
    offset, length = tensor.offset or 0, tensor.nbytes
    size = path.stat().st_size
    if tensor.length not in (None, 0, length):
        raise ModelError(f"{where} with {tensor.length} bytes, but its shape takes {length}")
    if offset + length > size:
        raise ModelError(
            f"{where} at bytes {offset} to {offset + length}, but that file has {size}",
            hint="the data file is truncated, or belongs to another model",
        )
    with path.open("rb") as file:
        file.seek(offset)
        data = file.read(length)
    return _from_bytes(tensor, data)


def _from_bytes(tensor: ir.ExternalTensor, data: bytes) -> ir.TensorProtocol:
    proto = onnx.TensorProto(
        name=tensor.name,
        data_type=int(tensor.dtype),
        dims=tensor.shape.numpy(),
        raw_data=data,
    )
    return ir.serde.deserialize_tensor(proto)


def _looks_like(data: bytes) -> tuple[str, str] | None:
    """What a file that is no protobuf model is, and what to do; None if it may be one."""
    if not data:
        return "the file is empty", "copy it again"
    if data.startswith(b"version https://git-lfs"):
        return "it is a Git-LFS pointer", "run: git lfs pull"
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        return "it is a web page or XML", "the download went wrong; fetch the raw file"
    return _looks_like_binary(data)


def _looks_like_binary(data: bytes) -> tuple[str, str] | None:
    torch_hint = (
        "it can run code when opened, so it is refused; save torch.export.export(module, "
        "example_inputs) as .pt2, or give module:function"
    )
    kinds: list[tuple[bytes, str, str]] = [
        (b"\x1f\x8b", "it is gzip-compressed", "unpack it first: gunzip FILE"),
        (b"PK\x03\x04", "it is a zip archive (a PyTorch .pt file, perhaps)", torch_hint),
        (b"\x80\x02", "it is a Python pickle (a PyTorch .pt file, perhaps)", torch_hint),
        (b"\x80\x03", "it is a Python pickle", torch_hint),
        (b"\x80\x04", "it is a Python pickle", torch_hint),
        (b"\x80\x05", "it is a Python pickle", torch_hint),
    ]
    if data[4:8] == b"TFL3":
        return "it is a TensorFlow Lite model", "convert the original model to ONNX"
    if data[30:43] == b"manifest.json":
        return "it is an edgebm bundle", "give the model that it was made from"
    if data.startswith(b"PK\x03\x04") and b".npy" in data[30:256]:
        return "it is a NumPy .npz file", "samples are given with -d"
    for magic, what, hint in kinds:
        if data.startswith(magic):
            return what, hint
    return None
