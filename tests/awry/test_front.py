"""`import awry`: every name is there, typed and light; `python -m awry` is the command."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path

import numpy as np
import pytest

import awry
from probes.errors import ProbeMismatchError
from probes.model.load import ChatModel
from tests.support import ROOT
from tests.support.models.tiny import tiny_chat

SOURCE = (ROOT / "awry" / "__init__.py").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def chat() -> ChatModel:
    return tiny_chat("llama")


def test_every_name_comes_from_its_home() -> None:
    assert sorted(awry.__all__) == awry.__dir__()
    assert len(awry.__all__) == len(set(awry.__all__))
    for name in set(awry.__all__) - {"__version__"}:
        assert getattr(awry, name) is getattr(import_module(awry._HOMES[name]), name)
    assert awry.__version__ == metadata.version("awry")


def test_type_checkers_see_the_same_names() -> None:
    """The imports under TYPE_CHECKING, the table of homes and `__all__` are one list."""
    (block,) = [n for n in ast.parse(SOURCE).body if isinstance(n, ast.If)]
    typed = {a.name: n.module for n in block.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert typed == awry._HOMES
    assert {*typed, "__version__"} == set(awry.__all__)
    assert (ROOT / "awry" / "py.typed").is_file()


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'load_modell'"):
        awry.load_modell  # noqa: B018


def test_importing_it_loads_no_model_library() -> None:
    script = "import sys, awry; assert not {'torch', 'transformers', 'sqlalchemy'} & set(sys.modules); dir(awry)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_the_module_is_the_command(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-m", "awry", "no-such-command"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert "no-such-command" in done.stderr


def conversations(word: str, n: int) -> list[awry.Conversation]:
    return [f"{word} number {i}" for i in range(n)]


def test_fit_score_and_evaluate(chat: ChatModel) -> None:
    probe = awry.fit(
        chat,
        conversations("poison", 60),
        conversations("garden", 60),
        benign=conversations("window", 40),
        name="words",
        sites="residual[1]",
        target_fpr=0.1,
    )
    assert probe.card.calibration.n == 40
    assert probe.card.evaluation["split"]["test"]["misaligned"] > 5
    scores = awry.score(chat, probe, ["poison number 3", [{"role": "user", "content": "poison number 3"}]])
    assert scores.dtype == np.float64
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    result = awry.evaluate(chat, probe, conversations("poison", 20), conversations("garden", 20))
    assert (result.positives, result.negatives) == (20, 20)
    assert result.auroc.value > 0.9


def test_a_probe_of_another_model_is_refused(chat: ChatModel) -> None:
    with pytest.raises(ProbeMismatchError):
        awry.score(chat, awry.load_probe("harmful-request"), ["hello"])


def test_equal_conversations_stay_in_one_split(chat: ChatModel) -> None:
    """A copy of every row changes no figure of the held-out rows but their number."""
    rows = conversations("poison", 60), conversations("garden", 60)
    benign = conversations("window", 30)
    once = awry.fit(chat, *rows, name="once", sites="residual[1]", benign=benign)
    doubled = [[*side, *side] for side in rows]
    twice = awry.fit(chat, *doubled, name="twice", sites="residual[1]", benign=benign)
    for split, counted in once.card.evaluation["split"].items():
        assert {k: 2 * v for k, v in counted.items()} == twice.card.evaluation["split"][split]


def test_generate_takes_strings_and_turns(chat: ChatModel) -> None:
    one, other = awry.generate(chat, ["hello", [{"role": "user", "content": "hello"}]], max_new_tokens=4)
    assert one == other
