"""The registry of probes: one live version a name, nothing written over, and the way back."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import IntegrityError

from storage import probe_registry as registry
from storage.probe_registry import Entry, RegistryError
from storage.schema import registered_probes

A, B, C = "a" * 32, "ab" * 16, "c" * 32


def added(connection: Connection, digest: str, version: int, name: str = "drift") -> Entry:
    entry, _ = registry.add(
        connection, digest=digest, name=name, version=version, card=b"card", tensors=b"\x00\xff", by="ann"
    )
    return entry


def stages(connection: Connection) -> dict[int, str]:
    return {entry.version: entry.stage for entry in registry.entries(connection, "drift")}


def test_what_is_added_comes_back_and_is_never_written_over(engine: Engine) -> None:
    with engine.begin() as connection:
        entry = added(connection, A, 1)
        assert (entry.stage, entry.added_by, str(entry)) == ("registered", "ann", "drift@1 (aaaaaaaa)")
        assert registry.files(connection, A) == (b"card", b"\x00\xff")
        again, new = registry.add(connection, digest=A, name="drift", version=1, card=b"other", tensors=b"", by="bob")
        assert (again, new) == (entry, False)
        assert registry.files(connection, A)[0] == b"card"
        with pytest.raises(RegistryError, match="--as-version 2"):
            added(connection, B, 1)
        added(connection, B, 7)
        with pytest.raises(RegistryError, match="--as-version 8"):
            added(connection, C, 1)


def test_probes_are_found_by_name_version_and_digest(engine: Engine) -> None:
    with engine.begin() as connection:
        one, two = added(connection, A, 1), added(connection, B, 2)
        assert registry.find(connection, "drift") == two  # the latest, as long as none is live
        live, _ = registry.promote(connection, one, "live")
        assert registry.find(connection, "drift") == live
        assert registry.find(connection, "drift@2") == two
        assert registry.find(connection, B[:8].upper()) == two
        for unknown in ("drift@3", "other", "aaaa", C):
            with pytest.raises(RegistryError, match="not in the registry, which has drift@1"):
                registry.find(connection, unknown)
        added(connection, A[:20] + "b" * 12, 3)
        with pytest.raises(RegistryError, match="begins 2 digests"):
            registry.find(connection, A[:8])


def test_an_empty_registry_says_how_it_is_filled(engine: Engine) -> None:
    with engine.connect() as connection, pytest.raises(RegistryError, match="awry probes add CARD"):
        registry.find(connection, "drift")


def test_one_version_is_live_and_a_rollback_brings_the_one_before(engine: Engine) -> None:
    with engine.begin() as connection:
        one, two, three = added(connection, A, 1), added(connection, B, 2), added(connection, C, 3)
        assert registry.promote(connection, one, "live")[1] is None
        instead = registry.promote(connection, two, "live")[1]
        assert instead is not None
        assert instead.digest == one.digest
        assert stages(connection) == {1: "retired", 2: "live", 3: "registered"}
        registry.promote(connection, three, "shadow")
        registry.retire(connection, three)  # was never live: no rollback brings it
        back, instead = registry.roll_back(connection, "drift")
        assert (back.version, instead and instead.version) == (1, 2)
        assert stages(connection) == {1: "live", 2: "retired", 3: "retired"}
        assert registry.roll_back(connection, "drift")[0].version == 2
        registry.retire(connection, registry.find(connection, "drift@1"))
        with pytest.raises(RegistryError, match="no other version"):
            registry.roll_back(connection, "drift")
        with pytest.raises(RegistryError, match="no other version"):
            registry.roll_back(connection, "unknown")


def test_the_database_holds_that_one_is_live(engine: Engine) -> None:
    with engine.begin() as connection:
        added(connection, A, 1)
        added(connection, B, 2)
        registry.promote(connection, registry.find(connection, A), "live")
    with pytest.raises(IntegrityError), engine.begin() as connection:
        connection.execute(registered_probes.update().values(stage="live"))


def test_live_and_shadow_stand_side_by_side(engine: Engine) -> None:
    with engine.begin() as connection:
        registry.promote(connection, added(connection, A, 1), "live")
        registry.promote(connection, added(connection, B, 2), "shadow")
        added(connection, C, 1, name="other")
        assert [e.digest for e in registry.in_stage(connection, "live")] == [A]
        assert [e.digest for e in registry.in_stage(connection, "shadow")] == [B]
