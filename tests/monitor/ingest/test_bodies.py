"""Bodies: every encoding that is announced, bounded before it is made."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from monitor.ingest.bodies import decompress
from monitor.ingest.inflight import InFlight
from monitor.ingest.refused import RefusedError

MIB = 1024 * 1024


def raw_deflate(data: bytes) -> bytes:
    made = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return made.compress(data) + made.flush()


def two_frames(data: bytes) -> bytes:
    made = zstandard.ZstdCompressor()
    return made.compress(data[:3]) + made.compress(data[3:])


WAYS: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "gzip": ("gzip", gzip.compress),
    "gzip, two members": ("gzip", lambda data: gzip.compress(data[:3]) + gzip.compress(data[3:])),
    "gzip, padded": ("gzip", lambda data: gzip.compress(data) + b"\x00" * 9),
    "zlib": ("deflate", zlib.compress),
    "deflate": ("deflate", raw_deflate),
    "zstd": ("zstd", zstandard.ZstdCompressor().compress),
    "zstd, two frames": ("zstd", two_frames),
}


@pytest.mark.parametrize("way", WAYS)
@given(data=st.binary(max_size=400))
def test_what_was_compressed_comes_back(way: str, data: bytes) -> None:
    encoding, compress = WAYS[way]
    assert decompress(compress(data), encoding, 1000) == data


@pytest.mark.parametrize("way", WAYS)
def test_exactly_the_limit_and_no_more(way: str) -> None:
    encoding, compress = WAYS[way]
    assert len(decompress(compress(b"a" * 1000), encoding, 1000)) == 1000
    with pytest.raises(RefusedError) as caught:
        decompress(compress(b"a" * 1001), encoding, 1000)
    assert caught.value.status == 413


@pytest.mark.parametrize("way", WAYS)
def test_a_bomb_is_not_made(way: str) -> None:
    import resource

    encoding, compress = WAYS[way]
    bomb = compress(b"\x00" * (200 * MIB))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(RefusedError) as caught:
        decompress(bomb, encoding, MIB)
    assert caught.value.status == 413
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024


@pytest.mark.parametrize("way", WAYS)
def test_what_is_cut_off_is_refused(way: str) -> None:
    encoding, compress = WAYS[way]
    whole = compress(bytes(range(256)) * 4).rstrip(b"\x00")
    with pytest.raises(RefusedError) as caught:
        decompress(whole[: len(whole) // 2], encoding, 10_000)
    assert caught.value.status == 400


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "zstd"])
@given(data=st.binary(min_size=1, max_size=60))
def test_anything_else_is_refused_or_small(encoding: str, data: bytes) -> None:
    def status() -> int:
        try:
            return 200 if len(decompress(data, encoding, 1000)) <= 1000 else 0
        except RefusedError as refused:
            return refused.status

    assert status() in (200, 400, 413)


def test_leases_share_one_limit() -> None:
    held = InFlight(100)
    one, two = held.lease(), held.lease()
    one.resize(60)
    with pytest.raises(RefusedError) as caught:
        two.resize(41)
    assert (caught.value.status, caught.value.retry_after) == (429, 1)
    two.resize(40)
    one.resize(10)
    two.resize(90)
    two.release()
    two.release()
    assert held.bytes == 10
