"""Many numbers as one parameter: an array of PostgreSQL's `real` in its binary form.

Contract: `RealArray(values)` is a parameter of the driver once `enable(connection)` was called for the connection.
Numbers are rounded to 32 bits; one that is too large for those becomes the largest of its sign, since PostgreSQL would
refuse the row; what is infinite or no number stays so. The bytes are made without a step of Python for each number.
"""

from __future__ import annotations

import math
import struct
import sys
from array import array
from collections.abc import Iterable

from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format
from sqlalchemy import Connection

LARGEST = struct.unpack(">f", b"\x7f\x7f\xff\xff")[0]
_REAL, _REALS = 700, 1021  # oids of real and real[]
_EMPTY = struct.pack(">iii", 0, 0, _REAL)


class RealArray:
    """Numbers for one parameter of type real[]."""

    def __init__(self, values: Iterable[float]) -> None:
        given = array("d", values)
        self.values = array("f", given)
        # Infinity is also what a number becomes that is too large; a sum tells at once that there is neither.
        if not math.isfinite(sum(self.values)):
            for n, value in enumerate(given):
                if math.isfinite(value) and math.isinf(self.values[n]):
                    self.values[n] = math.copysign(LARGEST, value)

    def __len__(self) -> int:
        return len(self.values)

    def to_binary(self) -> bytes:
        """As the server reads an array of one dimension: a header, then length and value of each number."""
        number = len(self.values)
        if not number:
            return _EMPTY
        ordered = array("f", self.values)
        if sys.byteorder == "little":
            ordered.byteswap()
        raw = ordered.tobytes()
        made = bytearray(8 * number)
        made[3::8] = b"\x04" * number
        for byte in range(4):
            made[4 + byte :: 8] = raw[byte::4]
        return struct.pack(">iiiii", 1, 0, _REAL, number, 1) + bytes(made)


class _RealArrayDumper(Dumper):
    format = Format.BINARY
    oid = _REALS

    def dump(self, obj: RealArray) -> Buffer | None:
        return obj.to_binary()


def enable(connection: Connection) -> None:
    """Let this connection's statements take a RealArray."""
    raw = connection.connection.driver_connection
    if raw is not None:
        raw.adapters.register_dumper(RealArray, _RealArrayDumper)
