"""Every YAML file of the repository by the rules of strict readers: Compose v2 refuses a key that stands twice, where
PyYAML lets the last one win."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import ROOT


class StrictLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Refuses a key that stands twice in one mapping; merged keys (`<<`) may be overridden."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if key.tag == "tag:yaml.org,2002:merge":
                continue
            name = self.construct_object(key, deep=True)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name} stands twice", key.start_mark)
            seen.add(name)
        return dict(super().construct_mapping(node, deep=deep))


def files() -> list[str]:
    found = []
    for folder, below, names in os.walk(ROOT):
        # Neither tools' folders nor what is built.
        below[:] = [name for name in below if name == ".github" or not (name.startswith((".", "_")) or name == "out")]
        found += [Path(folder, name) for name in names if name.endswith((".yml", ".yaml"))]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


def read(path: Path) -> list[Any]:
    return list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=StrictLoader))


def test_there_are_files() -> None:
    assert {"docker-compose.yml", ".github/workflows/ci.yml", "deploy/prometheus/prometheus.yml"} <= set(files())


@pytest.mark.parametrize("name", files())
def test_no_key_stands_twice(name: str) -> None:
    assert read(ROOT / name)


@pytest.mark.parametrize(
    "text", ["a: 1\nb: 2\na: 3\n", "x:\n  - {a: 1, 'a': 2}\n", "x: &x {a: 1}\ny:\n  <<: *x\n  b: 1\n  b: 2\n"]
)
def test_the_check_sees_a_key_that_stands_twice(text: str, tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text(text)
    with pytest.raises(yaml.YAMLError, match="stands twice"):
        read(tmp_path / "x.yml")


def test_a_merged_key_may_be_overridden(tmp_path: Path) -> None:
    (tmp_path / "x.yml").write_text("x: &x {a: 1, b: 1}\ny:\n  <<: *x\n  a: 2\n")
    assert read(tmp_path / "x.yml")[0]["y"] == {"a": 2, "b": 1}
