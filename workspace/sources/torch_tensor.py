"""PyTorch's .pt and .pth, read without torch: the only tensor or array, or else the one with the most voxels.

A .pt is a zip file: `data.pkl` says shapes, strides and offsets, and every storage is a member of its own, so that a
header costs no voxels. Files older than torch 1.6 are no zip files; those go to `torch.load(weights_only=True)`.
"""

import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ._common import MAX_BYTES, Header, check_size, without_leading_ones
from ._unpickle import Stored, largest, loads, record, torch_dtype

SUFFIXES = (".pt", ".pth")
_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bfloat16",
    "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2", "CharStorage": "i1", "ByteStorage": "u1",
    "BoolStorage": "b1",
}  # fmt: skip
_DTYPES = {"uint16": "u2", "uint32": "u4", "uint64": "u8"}  # the types without a storage class of their own


def header(path: Path) -> Header:
    """Of a zip file, only the description is read."""
    if not zipfile.is_zipfile(path):
        array = _old_style(path)
        return Header(shape=without_leading_ones(array.shape), dtype=array.dtype.name)
    with zipfile.ZipFile(path) as archive:
        stored, _ = _describe(archive)
    return Header(shape=without_leading_ones(stored.shape), dtype=stored.final_dtype.name)


def read(path: Path) -> tuple[np.ndarray, None]:
    """The tensor as stored, without leading axes of length 1; bfloat16 becomes float32."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            stored, folder = _describe(archive)
            raw = stored.data
            if isinstance(raw, str):
                raw = _member(archive, f"{folder}data/{raw}", stored.span)
        array = stored.array(raw)
    else:
        array = _old_style(path)
    return array.reshape(without_leading_ones(array.shape)), None


def _describe(archive: zipfile.ZipFile) -> tuple[Stored, str]:
    """The largest tensor, and the folder inside the archive."""
    found = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if found is None:
        raise ValueError("is a zip file, but holds no tensor")
    folder = found.removesuffix("data.pkl")
    order = "<"
    if f"{folder}byteorder" in archive.namelist() and _member(archive, f"{folder}byteorder", 3) == b"big":
        order = ">"
    stored = largest(loads(_member(archive, found, MAX_BYTES), _names(order), _storage))
    check_size(stored.shape, stored.final_dtype)
    if stored.span > MAX_BYTES:
        raise ValueError("needs more than 4 GiB of storage")
    return stored, folder


def _member(archive: zipfile.ZipFile, name: str, size: int) -> bytes:
    """The first `size` bytes of a member."""
    info = archive.getinfo(name)
    if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError("is refused: its members are compressed, which torch.save never does")
    with archive.open(info) as file:
        return file.read(size)


def _old_style(path: Path) -> np.ndarray:
    import torch

    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError("is no zip file, and torch.load(weights_only=True) refuses it as an old-style one") from error
    tensors = [tree] if isinstance(tree, torch.Tensor) else list(tree.values() if isinstance(tree, dict) else tree)
    tensors = [tensor for tensor in tensors if isinstance(tensor, torch.Tensor)]
    if not tensors:
        raise ValueError("holds no tensor")
    tensor = max(tensors, key=lambda t: t.numel()).detach()
    array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    check_size(array.shape, array.dtype)
    return array


# ------------------------------------------------------------------------------------------------ stand-ins for torch
def _names(order: str) -> dict[tuple[str, str], Any]:
    """What a file of tensors may name; also MONAI's MetaTensor, of which the tensor is kept."""
    return {
        ("torch._utils", "_rebuild_tensor_v2"): _tensor,
        ("torch._utils", "_rebuild_tensor_v3"): _untyped_tensor,
        ("torch._utils", "_rebuild_parameter"): _parameter,
        ("torch._tensor", "_rebuild_from_type_v2"): _subclass,
        ("torch", "Size"): tuple,
        ("torch.storage", "UntypedStorage"): None,
        ("collections", "OrderedDict"): _empty_dict,
        ("monai.data.meta_tensor", "MetaTensor"): None,
        ("monai.utils.enums", "MetaKeys"): _word,
        ("monai.utils.enums", "SpaceKeys"): _word,
        ("__builtin__", "getattr"): _enum_member,  # so Python 3.11.2 writes a member of an enum
        ("builtins", "getattr"): _enum_member,
        **{("torch", name): partial(torch_dtype, code, order) for name, code in (_STORAGES | _DTYPES).items()},
    }


def _storage(kind: Any, dtype: Any, key: Any, *_: Any) -> tuple[Any, str]:
    if kind != "storage" or not isinstance(key, str):
        raise ValueError("points to something that is not a storage")
    return dtype, key


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Stored:
    dtype, key = storage
    return record(key, dtype(), shape, strides, offset)


def _untyped_tensor(storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any) -> Stored:
    return record(storage[1], dtype(), shape, strides, offset)


def _parameter(tensor: Any, *_: Any) -> Any:
    return tensor


def _subclass(rebuild: Any, kind: Any, arguments: Any, state: Any) -> Any:
    return rebuild(*arguments)


def _empty_dict() -> dict:
    return {}


def _enum_member(kind: Any, name: Any) -> str:
    if kind is not _word or type(name) is not str:
        raise ValueError("is refused: it asks for a part of something; save it as plain arrays")
    return name


def _word(text: Any) -> Any:
    return text
