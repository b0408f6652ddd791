"""The reading record: what is scored is checked strictly, what clients send along costs nothing, nothing is quoted."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from monitor.readings import schema
from monitor.readings.schema import NotScored, ProbeValue, Reading, ReadingError, Steered, Tokens, dumps, loads
from tests.support import ROOT

SECRET = "GEHEIMTEXT"
WHEN = datetime(2026, 11, 29, 10, 0, 0, 123456, tzinfo=UTC)


def full() -> Reading:
    return Reading(
        "vllm 0.32.0",
        "0a" * 16,
        17,
        "final",
        WHEN,
        dropped=2,
        id="chatcmpl-1",
        request="chatcmpl-1-9f",
        model="served",
        model_identity={"model": "m", "dtype": "float32"},
        finish="stop",
        tokens=Tokens(31, 12, 16),
        tenant="shop",
        user="ann",
        conversation_id="c1",
        trace_id="ab",
        attributes={"route": "eu", "n": 3},
        verified=("tenant",),
        roles=("system", "user"),
        probes=(ProbeValue("p", "ab" * 16, 0.31, 12, ((0, 0.2), (1, 0.31)), (0.1, -0.5)),),
        not_scored=(NotScored("q", "no response"),),
        steered=Steered("p", "flagged"),
    )


def value(**changes: Any) -> dict[str, Any]:
    made: dict[str, Any] = json.loads(dumps(full()))
    return {name: each for name, each in (made | changes).items() if each is not ...}


def test_what_is_written_is_read() -> None:
    assert loads(dumps(full())) == full()
    beat = Reading("vllm 0.32.0", "0a" * 16, 18, "heartbeat", WHEN, dropped=2, closed=True, model="served")
    assert loads(dumps(beat)) == beat
    assert json.loads(dumps(beat)).keys() == {
        *("awry_reading", "engine", "instance", "sequence", "kind", "created", "dropped", "closed", "model")
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"awry_reading": 2}, "awry_reading: version 2, and this awry reads 1"),
        ({"awry_reading": SECRET}, "awry_reading: version"),
        ({"awry_reading": ...}, "awry_reading: missing"),
        ({"engine": ""}, "engine: missing"),
        ({"instance": SECRET}, "instance: missing, or not 32 lower hex digits"),
        ({"sequence": -1}, "sequence: missing, or no whole number"),
        ({"sequence": True}, "sequence: missing, or no whole number"),
        ({"sequence": 2**64}, "sequence: missing, or no whole number"),
        ({"dropped": "3"}, "dropped: missing, or no whole number"),
        ({"kind": SECRET}, "kind: none of final, partial, heartbeat"),
        ({"created": "yesterday"}, "created: missing, or no time"),
        ({"id": ...}, "id: missing"),
        ({"id": "x" * 513}, "id: missing, or no name"),
        ({"request": 7}, "request: no id of 1 to 200"),
        ({"request": SECRET * 21}, "request: no id of 1 to 200"),
        ({"finish": SECRET}, "finish: none of"),
        ({"closed": 1}, "closed: not true or false"),
        ({"tokens": {"prompt": 1.5}}, "tokens.prompt: missing"),
        ({"tokens": []}, "tokens: no object"),
        ({"probes": {}}, "probes: no list"),
        ({"probes": [1]}, r"probes\[0\]: no object"),
        ({"probes": [{"name": "p"}]}, r"probes\[0\].digest: missing"),
        ({"probes": [{"name": "p", "digest": "ab" * 16, "tokens": 1}]}, r"probes\[0\].value: missing"),
        ({"probes": [{"name": "p", "digest": "ab" * 16, "value": math.nan, "tokens": 1}]}, "not finite"),
        ({"probes": [{"name": "p", "digest": "ab" * 16, "value": 10**400, "tokens": 1}]}, "not finite"),
        ({"probes": [{"name": "p", "digest": "ab" * 16, "value": 1, "tokens": 1, "turns": [[0]]}]}, "no pair"),
        ({"probes": [{"name": "p", "digest": "ab" * 16, "value": 1, "tokens": 1, "turns": [[10**9, 1]]}]}, "no turn"),
        ({"probes": [{"name": "p", "digest": "ab" * 16, "value": 1, "tokens": 1, "parts": ["a"]}]}, "no number"),
        ({"probes": [{"name": "p", "digest": "ab" * 16, "value": 1, "tokens": 1}] * 2}, "one is there twice"),
        ({"probes": [{}] * 65}, "at most 64"),
        ({"not_scored": [{"name": "p"}]}, r"not_scored\[0\].reason: missing"),
        ({"steered": {"recipe": "r", "why": SECRET}}, "steered.why: none of asked, flagged"),
        ({"model_identity": {"a": "x" * 9000}}, "model_identity: over"),
        ({"roles": [SECRET * 20]}, "roles: one is no word"),
    ],
)
def test_what_is_wrong_is_named_and_not_quoted(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ReadingError, match=said) as found:
        loads(json.dumps(value(**changes)))
    assert SECRET not in str(found.value)
    assert "\n" not in str(found.value)


@pytest.mark.parametrize("payload", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"[]", b"3", b'"awry_reading"'])
def test_what_is_no_object(payload: bytes) -> None:
    with pytest.raises(ReadingError, match=r"payload: |awry_reading: missing"):
        loads(payload)


def test_what_clients_send_along_costs_no_reading() -> None:
    deep: Any = 1
    for _ in range(50):
        deep = [deep]
    sent = value(
        tenant="t" * 600,
        user=["x"],
        conversation_id="nul \x00",
        trace_id=7,
        attributes={"big": "x" * 9000, "deep": deep, "nan": math.inf, "route": "eu"},
        verified=["tenant", "user", "role"],
        later="a field of a later version",
    )
    reading = loads(json.dumps(sent))
    assert (reading.tenant, reading.user, reading.conversation_id, reading.trace_id) == (None, None, "nul \u2400", "7")
    assert (reading.attributes, reading.verified) == ({"route": "eu"}, ())
    assert len(reading.notes) == 6
    assert reading.probes == full().probes
    # The engine's side leaves the same out, so that the record it sends is one that is read.
    assert loads(schema.encode(sent)) == reading


def test_numbers_of_numpy_are_no_surprise() -> None:
    import numpy as np

    odd = value(probes=[{"name": "p", "digest": "ab" * 16, "value": np.float64(0.5), "tokens": 1}])
    assert loads(schema.encode(odd)).probes[0].value == 0.5
    with pytest.raises(ReadingError, match=r"probes\[0\].value: missing, or no number"):
        schema.encode(value(probes=[{"name": "p", "digest": "ab" * 16, "value": np.float32(0.5), "tokens": 1}]))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(sorted(value())), _JSON, max_size=4))
def test_whatever_stands_in_a_field(changes: dict[str, Any]) -> None:
    try:
        reading = schema.check(value(**changes))
    except ReadingError:
        return
    assert loads(dumps(reading)) == reading


def test_it_imports_with_the_standard_library_alone() -> None:
    """It runs in the engine's environment, which has none of awry's dependencies."""
    code = (
        "import sys\n"
        "sys.path.insert(0, sys.argv[1])\n"
        "import monitor.readings.publisher, monitor.readings.schema\n"
        "print({name.partition('.')[0] for name in sys.modules})\n"
    )
    ran = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)], capture_output=True, text=True, check=True
    )
    found = eval(ran.stdout)  # noqa: S307 - a set of names that the line above printed
    ours = {"monitor", "awry", "storage"}
    assert {name for name in found if name not in sys.stdlib_module_names} - ours - {"__main__"} == set()
