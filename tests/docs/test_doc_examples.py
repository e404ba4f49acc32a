"""Every example in the documentation runs, and prints what the page says it prints.

The blocks of a page run from top to bottom in one folder of their own. A `python` block shares its names with those before it; a `console` block is given to a shell, line by line as it
stands behind the prompt. What a block prints stands in a `text` block right behind it, or, in a console block, under the command. `…` stands for whatever differs from run to run.
Every command of a pipeline ends well; a line that shows one that does not says so (`|| echo`).
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pages import PAGES, ROOT, Block, blocks, name_of


WITH_EXAMPLES = [page for page in PAGES if any(block.language in ("python", "console") for block in blocks(page))]

_ONLY_NAMED = re.compile(r"(make|pip|apt-get|git|source) |python (-m benchmarks|examples/)")
"""Commands that need a clone, the network or minutes: `test_doc_commands` sees that they exist, other tests that they work."""


@pytest.fixture
def namespace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What the blocks of a page share; in a folder of its own, and left closed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    names: dict[str, Any] = {"__name__": "__main__"}
    yield names
    for value in names.values():
        if hasattr(value, "close") and type(value).__module__.startswith("overspill"):
            value.close()


def matches(printed: str, expected: str) -> bool:
    pattern = re.escape(expected.rstrip()).replace("…", ".*?")
    return re.fullmatch(pattern, printed.rstrip(), re.DOTALL) is not None


def run_python(block: Block, page: Path, names: dict[str, Any], where: str) -> None:
    printed = io.StringIO()
    try:
        code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
        with contextlib.redirect_stdout(printed):
            exec(code, names)
    except Exception as error:
        # One that fails on purpose shows the last line of its traceback.
        said = f"{type(error).__name__}: {error}"
        assert block.answer is not None and matches(said, block.answer.splitlines()[-1]), f"{where}: {said}"
        printed.write(said + "\n")
    if block.answer is not None:
        assert matches(printed.getvalue(), block.answer), f"{where}: {printed.getvalue()}"


def commands_of(text: str) -> list[tuple[str, str]]:
    """Each command of a console block with what the page shows under it."""
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], ""))
        elif line.startswith("> "):
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", "")
        else:
            found[-1] = (found[-1][0], f"{found[-1][1]}{line}\n")
    return found


def run_console(block: Block, where: str) -> None:
    for command, shown in commands_of(block.text):
        if _ONLY_NAMED.match(command) or "overspill demo" in command:
            continue
        done = subprocess.run(["bash", "-o", "pipefail", "-c", command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60)
        assert "Traceback" not in done.stdout, f"{where}: $ {command}\n{done.stdout}"
        assert matches(done.stdout, shown or "…"), f"{where}: $ {command}\n{done.stdout}"
        assert done.returncode == 0, f"{where}: $ {command} ended with {done.returncode}\n{done.stdout}"


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=name_of)
def test_examples_run_one_after_the_other_and_print_what_the_page_says(page: Path, namespace: dict[str, Any]) -> None:
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        if block.language == "python":
            run_python(block, page, namespace, where)
        elif block.language == "console":
            run_console(block, where)


def test_readme_begins_with_one_sentence_and_an_example_that_prints() -> None:
    first, *_ = blocks(ROOT / "README.md")
    sentence = (ROOT / "README.md").read_text(encoding="utf-8").split("```")[0].split("\n\n")[1]
    assert sentence.count(". ") == 0 and sentence.endswith(".")
    assert first.language == "python" and first.answer


def test_no_example_is_skipped() -> None:
    for page in PAGES:
        for block in blocks(page):
            assert "doctest:" not in block.text, f"{name_of(page)}:{block.line}"


def test_what_differs_is_all_that_an_ellipsis_hides() -> None:
    assert matches("took 5 ms\ndone\n", "took … ms\ndone\n")
    assert not matches("took 5 ms\nnot done\n", "took … ms\ndone\n")
    assert commands_of("$ a \\\n> b\nout\n$ c\n") == [("a \\\nb", "out\n"), ("c", "")]
