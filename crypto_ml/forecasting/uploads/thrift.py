"""Thrift's compact protocol, as much of it as the header of a Parquet page needs: one struct, read and no more.

https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md
"""

from typing import Any, Final

DEEPEST: Final = 8
MOST_ELEMENTS: Final = 10_000

_STOP, _TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(13)


class Damaged(Exception):  # noqa: N818 - reads as what happened
    """Bytes that are no such struct."""


def read_struct(content: bytes) -> tuple[dict[int, Any], int]:
    """The fields of the struct that bytes begin with, by their numbers, and its length. Raises Damaged."""
    reader = _Reader(content)
    try:
        return reader.struct(0), reader.at
    except IndexError as error:
        raise Damaged("a struct ends in its middle") from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self.at = 0

    def struct(self, depth: int) -> dict[int, Any]:
        if depth > DEEPEST:
            raise Damaged("structs within structs")
        fields: dict[int, Any] = {}
        number = 0
        while (head := self._byte()) != _STOP:
            number = number + (head >> 4) if head >> 4 else self._signed()
            fields[number] = self._value(head & 15, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind in (_BYTE, _DOUBLE, _BINARY):
            return self._skip({_BYTE: 1, _DOUBLE: 8}.get(kind) or self._varint())
        if kind == _STRUCT:
            return self.struct(depth + 1)
        if kind in (_LIST, _SET):
            head = self._byte()
            count = head >> 4 if head >> 4 != 15 else self._varint()
            self._elements(count)
            return [self._value(head & 15, depth + 1) for _ in range(count)]
        raise Damaged(f"a field of the unknown type {kind}")

    def _elements(self, count: int) -> None:
        if count > MOST_ELEMENTS:
            raise Damaged("a list that is too long")

    def _byte(self) -> int:
        self.at += 1
        return self._content[self.at - 1]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7
            if shift > 63:
                raise Damaged("a number that is too long")

    def _signed(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _skip(self, length: int) -> None:
        self.at += length
        if self.at > len(self._content):
            raise Damaged("a struct ends in its middle")
