"""Safetensors files that are written completely or not at all, with checksums of their content."""

from __future__ import annotations

import json
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fastgan._names import printable

INCOMPLETE = ".incomplete"
# Keys of the metadata: JSON with a CRC-32 per tensor, and one of the metadata. CRC-32 reads 3 GB a second on
# a core, four times as much as SHA-256, and is meant to find damage, not malice.
CHECKSUMS, CHECKSUM_OF_METADATA = "crc32", "crc32_of_metadata"
# Accepted when reading. Others, as float8 and complex numbers, are never written, and torch does not support
# the operations needed here for them, or drops a part of their values.
DTYPES = frozenset(
    {
        torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.bool, torch.uint8, torch.int8,
        torch.int16, torch.int32, torch.int64,
    }
)  # fmt: skip
CHUNK = 2**24


def write_weights(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Writes a safetensors file that appears under its name only when it is complete and on the disk.

    Its permissions are those of any new file.

    Raises:
        OSError: it cannot be written.
    """
    # In a folder, because safetensors writes a temporary file of its own, which kill -9 would leave behind.
    folder = path.with_name(path.name + INCOMPLETE)
    temporary = folder / path.name
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        temporary.touch()
        mode = temporary.stat().st_mode
        contiguous = {key: tensor.detach().cpu().contiguous() for key, tensor in tensors.items()}
        save_file(contiguous, temporary, _with_checksums(metadata, contiguous))
        temporary.chmod(mode)  # safetensors makes it readable by its owner only
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except (OSError, SafetensorError) as error:
        raise OSError(f"could not write {printable(path)}: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def read_weights(path: Path, kind: str = "safetensors file") -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata and the tensors of a safetensors file, on the CPU.

    safetensors itself checks the file's length against its header before it allocates a tensor.

    Args:
        kind: what an error calls the file.

    Raises:
        OSError: it cannot be read; names the file.
        ValueError: damaged, or with a dtype that is never written; names the file and the problem.
    """
    metadata, tensors = read_tensors(path, kind)
    check_dtypes(path, tensors)
    return metadata, tensors


def read_tensors(path: Path, kind: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """As :func:`read_weights`, for any dtypes."""
    try:
        # Read it once: safetensors maps the file, and a disk error in a mapping would kill the process.
        with path.open("rb") as plain:
            while plain.read(CHUNK):
                pass
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        _check_checksums(metadata, tensors)
    except OSError as error:  # never FileNotFoundError, which callers take for no checkpoint at all
        raise OSError(f"could not read {printable(path)}: {printable(error)}") from error
    except (SafetensorError, RuntimeError, LookupError, TypeError, ValueError) as error:
        raise ValueError(f"{printable(path)} is not a readable {kind}: {printable(error)}") from error
    return metadata, tensors


def check_dtypes(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Raises a ValueError that names the first tensor of a dtype that is never written."""
    for key, tensor in tensors.items():
        if tensor.dtype not in DTYPES:
            wrong = f"{printable(key)} is {tensor.dtype}, which fastgan never writes"
            raise ValueError(f"{printable(path)} is of no use: {wrong}")


def _with_checksums(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> dict[str, str]:
    checksums = {key: _checksum(tensor) for key, tensor in tensors.items()}
    with_tensors = {**metadata, CHECKSUMS: json.dumps(checksums)}
    return {**with_tensors, CHECKSUM_OF_METADATA: _checksum_of_metadata(with_tensors)}


def _check_checksums(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> None:
    """Raises a ValueError for damage; files of other programs have no checksums."""
    if CHECKSUM_OF_METADATA not in metadata:
        return
    if metadata[CHECKSUM_OF_METADATA] != _checksum_of_metadata(metadata):
        raise ValueError("its metadata does not match its checksum")
    checksums = json.loads(metadata[CHECKSUMS])
    if not isinstance(checksums, dict):
        raise ValueError(f"its checksums must be an object, got {type(checksums).__name__}")
    for key, checksum in checksums.items():
        if key not in tensors:
            raise ValueError(f"it has no tensor {key} any more")
        if checksum != _checksum(tensors[key]):
            raise ValueError(f"its tensor {key} does not match its checksum")


def _checksum(tensor: Tensor) -> int:
    described = zlib.crc32(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
    return zlib.crc32(tensor.reshape(-1).view(torch.uint8).numpy().data, described)


def _checksum_of_metadata(metadata: Mapping[str, str]) -> str:
    checked = sorted((key, value) for key, value in metadata.items() if key != CHECKSUM_OF_METADATA)
    return f"{zlib.crc32(json.dumps(checked).encode()):08x}"


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
