"""Line numbers in TOML documents."""

from __future__ import annotations

from alerts.rules.toml_lines import line_of, locate


def test_lines_are_found() -> None:
    text = (
        '# [[rate]]\n[[rate]]\nname = "[[x]]"\nlong = """\n[[rate]]\nname = 3\n"""\nlist = [\n  "a",\n]\n'
        '[[rate]]\na.b = 1\n[rate.severity]\n"err or" = 2\n'
    )
    found = locate(text)
    assert found[("rate", 0)] == 2
    assert found[("rate", 0, "name")] == 3
    assert found[("rate", 0, "list")] == 8
    assert found[("rate", 1)] == 11
    assert found[("rate", 1, "a")] == found[("rate", 1, "a", "b")] == 12
    assert found[("rate", 1, "severity", "err or")] == 14
    assert line_of(found, ("rate", 0, "list", 1)) == 8
    assert line_of(found, ("nothing",)) is None
