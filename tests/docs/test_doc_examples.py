"""Every example in the documentation runs, and prints what the page says it prints."""

from __future__ import annotations

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT, blocks, name_of

import overspill

WITH_EXAMPLES = [page for page in PAGES if any(block.language == "python" for block in blocks(page))]


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the blocks of a page share; in a folder of its own, and left closed."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {"__name__": "example"}
    yield names
    for value in names.values():
        if isinstance(value, overspill.HybridQueue):
            value.close()


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_examples_run_one_after_the_other_and_print_what_the_page_says(page: Path, namespace: dict[str, Any]) -> None:
    for block in blocks(page):
        if block.language != "python":
            continue
        where = f"{name_of(page)}:{block.line}"
        printed = io.StringIO()
        try:
            code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
            with contextlib.redirect_stdout(printed):
                exec(code, namespace)
        except Exception as error:
            # One that fails on purpose shows the last line of its traceback.
            said = f"{type(error).__name__}: {error}"
            assert block.answer is not None and block.answer.splitlines()[-1] == said, f"{where}: {said}"
            printed.write(said + "\n")
        if block.answer is not None:
            assert printed.getvalue() == block.answer, where


def test_readme_begins_with_one_sentence_and_an_example_that_prints() -> None:
    first, *_ = blocks(ROOT / "README.md")
    sentence = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[0].split("\n\n")[1]
    assert sentence.count(". ") == 0 and sentence.endswith(".")
    assert first.language == "python" and first.answer


def test_no_example_is_skipped() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert "doctest:" not in block.text, f"{name_of(page)}:{block.line}"
