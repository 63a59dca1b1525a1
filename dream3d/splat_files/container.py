"""PLY files as such: a header of elements with named properties, then their rows in ASCII or either byte order."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dream3d.checks import InputError
from dream3d.splat_files.base import damaged

HEADER_LIMIT = 1 << 16
"""Bytes in which `end_header` must stand; Gaussians of degree 3 need 1500."""

BYTE_ORDERS = {"ascii": "=", "binary_little_endian": "<", "binary_big_endian": ">"}
TYPES = {
    **{"char": "i1", "uchar": "u1", "short": "i2", "ushort": "u2", "int": "i4", "uint": "u4"},
    **{"float": "f4", "double": "f8", "int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2"},
    **{"int32": "i4", "uint32": "u4", "float32": "f4", "float64": "f8"},
}
NAMES = {"f4": "float", "u4": "uint", "u1": "uchar"}


class Ply(NamedTuple):
    """Comments, and per element a structured array with a row for each of its entries."""

    comments: tuple[str, ...]
    elements: Mapping[str, NDArray]


class _Element(NamedTuple):
    name: str
    count: int
    properties: dict[str, str]
    lists: list[str]


def to_ply(comments: tuple[str, ...], elements: Mapping[str, NDArray]) -> bytes:
    """A binary little-endian PLY file; the arrays are structured and little-endian."""
    lines = ["ply", "format binary_little_endian 1.0", *(f"comment {comment}" for comment in comments)]
    for name, rows in elements.items():
        lines.append(f"element {name} {len(rows)}")
        fields = rows.dtype.names or ()
        lines += [f"property {NAMES[rows.dtype[field].str[1:]]} {field}" for field in fields]
    header = "\n".join([*lines, "end_header"]) + "\n"
    return header.encode("ascii") + b"".join(rows.tobytes() for rows in elements.values())


def parse_ply(data: bytes, name: str) -> Ply:
    """Elements of scalar properties, up to the first that has a list: that one and what follows is not read.

    Raises:
        InputError: not a PLY file, or one whose header and length do not fit together.
    """
    if not re.match(rb"ply[ \t]*\r?\n", data):
        raise InputError(f"{name}: expected a PLY file, which begins with 'ply', got something else.")
    end = re.search(rb"\nend_header[ \t]*\r?\n", data[:HEADER_LIMIT])
    if end is None:
        raise damaged(name, f"its header has no end_header in the first {HEADER_LIMIT:,} bytes")
    form, comments, elements = _header(data[: end.start()].decode("ascii", "replace").splitlines()[1:], name)
    flat = elements[: next((i for i, element in enumerate(elements) if element.lists), len(elements))]
    whole = len(flat) == len(elements)
    rows = (_ascii if form == "ascii" else _binary)(data, end.end(), flat, BYTE_ORDERS[form], whole, name)
    return Ply(comments, dict(zip([element.name for element in flat], rows, strict=True)))


def _header(lines: list[str], name: str) -> tuple[str, tuple[str, ...], list[_Element]]:
    form, comments, elements = "", [], []
    for line in lines:
        match line.split():
            case []:
                pass
            case ["comment" | "obj_info", *_]:
                comments.append(line.strip().partition(" ")[2])
            case ["format", order, _] if order in BYTE_ORDERS and not form:
                form = order
            case ["element", what, count] if re.fullmatch("[0-9]{1,12}", count):
                elements.append(_Element(what, int(count), {}, []))
            case ["property", "list", _, _, what] if elements:
                elements[-1].lists.append(what)
            case ["property", kind, what] if elements and kind in TYPES and what not in elements[-1].properties:
                elements[-1].properties[what] = TYPES[kind]
            case _:
                raise damaged(name, f"cannot make sense of the header line '{line.strip()[:60]}'")
    if not form:
        raise damaged(name, f"its header names no format; expected one of {', '.join(BYTE_ORDERS)}")
    if len({element.name for element in elements}) < len(elements):
        raise damaged(name, "two elements have the same name")
    return form, tuple(comments), elements


def _binary(data: bytes, start: int, elements: list[_Element], order: str, whole: bool, name: str) -> list[NDArray]:
    found = []
    for element in elements:
        dtype = np.dtype([(field, order + kind) for field, kind in element.properties.items()])
        size = dtype.itemsize * element.count
        if len(data) - start < size:
            raise _short(name, element, f"{size:,} bytes", f"{len(data) - start:,}")
        empty = np.zeros(element.count if dtype.itemsize else 0, dtype)
        found.append(np.frombuffer(data, dtype, element.count, start) if size else empty)
        start += size
    if whole and data[start:].strip():
        raise damaged(name, f"{len(data) - start:,} bytes more than its header says")
    return found


def _ascii(data: bytes, start: int, elements: list[_Element], order: str, whole: bool, name: str) -> list[NDArray]:
    words, found, start = data[start:].decode("ascii", "replace").split(), [], 0
    for element in elements:
        dtype = np.dtype([(field, order + kind) for field, kind in element.properties.items()])
        width = len(element.properties)
        size = width * element.count
        if len(words) - start < size:
            raise _short(name, element, f"{size:,} numbers", f"{len(words) - start:,}")
        try:
            values = np.array(words[start : start + size], dtype=np.float64).reshape(-1, max(width, 1))
        except ValueError as error:
            raise damaged(name, f"element {element.name}: {error}") from None
        rows = np.zeros(element.count if width else 0, dtype)
        # A NaN where an integer should stand becomes some integer, as it would in C.
        with np.errstate(invalid="ignore", over="ignore"):
            for field, column in zip(element.properties, values.T, strict=False):
                rows[field] = column
        found.append(rows)
        start += size
    if whole and len(words) > start:
        raise damaged(name, f"{len(words) - start:,} numbers more than its header says")
    return found


def _short(name: str, element: _Element, wanted: str, got: str) -> InputError:
    return damaged(name, f"{element.count:,} of element {element.name} need {wanted}, {got} are left")
