"""Protobuf messages as lists of records that can be written in every way the format allows, the unusual ones included."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable

VARINT, FIXED64, BYTES, GROUP, END_GROUP, FIXED32 = range(6)


@dataclasses.dataclass(frozen=True)
class Record:
    """One field. `value` has the bytes after the tag, without a length; `padding` widens the length and `tag_padding` the tag."""

    field: int
    kind: int
    value: bytes
    padding: int = 0
    tag_padding: int = 0

    def encoded(self) -> bytes:
        length = varint(len(self.value), self.padding) if self.kind == BYTES else b""
        return varint(self.field << 3 | self.kind, self.tag_padding) + length + self.value


def varint(number: int, padding: int = 0) -> bytes:
    """Little-endian groups of seven bits, with `padding` empty ones behind."""
    groups = [number & 0x7F]
    while number := number >> 7:
        groups.append(number & 0x7F)
    groups += [0] * padding
    return bytes([group | 0x80 for group in groups[:-1]] + groups[-1:])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        number |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if data[at - 1] < 0x80:
            return number, at


def parse(data: bytes) -> list[Record]:
    """The records of a message without groups; unusual widths are read, not kept."""
    records, at = [], 0
    while at < len(data):
        tag, at = read_varint(data, at)
        kind = tag & 7
        if kind == BYTES:
            length, at = read_varint(data, at)
        else:
            length = {VARINT: read_varint(data, at)[1] - at if kind == VARINT else 0, FIXED64: 8, FIXED32: 4}[kind]
        records.append(Record(tag >> 3, kind, data[at : at + length]))
        at += length
    assert at == len(data)
    return records


def encode(records: Iterable[Record]) -> bytes:
    return b"".join(record.encoded() for record in records)


def replace(data: bytes, field: int, edit: Callable[[bytes], bytes]) -> bytes:
    """The message with `edit` applied to every message-valued record of a field."""
    return encode(
        dataclasses.replace(r, value=edit(r.value)) if r.field == field and r.kind == BYTES else r for r in parse(data)
    )


def padded(data: bytes, fields: Iterable[int], padding: int, tag_padding: int = 0) -> bytes:
    """The message with wider lengths (and tags) of some fields."""
    fields = set(fields)
    return encode(
        dataclasses.replace(r, padding=padding, tag_padding=tag_padding) if r.field in fields and r.kind == BYTES else r
        for r in parse(data)
    )


def unknown(seed: int) -> list[Record]:
    """Fields that no schema has: a number, a text, a fixed64, a fixed32 and a group with a field in it."""
    inner = Record(1, VARINT, varint(seed)).encoded()
    group = Record(3003, GROUP, inner + varint(3003 << 3 | END_GROUP))
    return [
        Record(3000, VARINT, varint(seed, 2)),
        Record(3001, BYTES, b"unknown %d" % seed, padding=1),
        Record(3002, FIXED64, bytes(range(8))),
        Record(3004, FIXED32, bytes(4)),
        group,
    ]
