"""Every command, link, path and name in the documentation is there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
from pages import PAGES, ROOT, blocks, code_spans, name_of, prose, section, table_rows

import overspill
from overspill import cli
from overspill.options import OPTION_NAMES

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
TARGETS = set(re.findall(r"^([a-z]+):", MAKEFILE, re.MULTILINE))
EXTRAS = set(PROJECT["optional-dependencies"])


def commands(page: Path) -> list[list[str]]:
    """The command lines of a page: those of its console blocks, and the code spans that begin like one."""
    lines = [line[2:] for block in blocks(page) if block.language == "console" for line in block.text.splitlines() if line.startswith("$ ")]
    lines += [span for span in code_spans(prose(page)) if re.match(r"(make|overspill|python -m|pip install) ", span)]
    ours = [re.search(r"(?:^|\| )((?:make|overspill|python -m|pip install) .*?)(?= \||$)", line) for line in lines]
    return [shlex.split(piece[1] if piece else line, comments=True) for piece, line in zip(ours, lines, strict=True)]


def unknown(command: list[str]) -> str | None:
    match command:
        case ["make", *targets]:
            named = [word for word in targets if "=" not in word]
            return next((f"no target {target}" for target in named if target not in TARGETS), None)
        case ["overspill", verb, *flags]:
            if verb not in cli.main.commands:
                return f"no command {verb}"
            command = cli.main.commands[verb]
            while isinstance(command, click.Group):
                verb, *flags = flags or [""]
                if verb not in command.commands:
                    return f"no command {verb} of {command.name}"
                command = command.commands[verb]
            known = {name for option in command.params for name in option.opts}
            return next((f"no option {flag}" for flag in flags if flag.startswith("-") and flag not in known), None)
        case ["pip", "install", *words]:
            extras = {extra for word in words for group in re.findall(r"\[(.*?)\]", word) for extra in group.split(",")}
            return f"no extra {extras - EXTRAS}" if extras - EXTRAS else None
        case ["python", "-m", "benchmarks.pipe", *_]:
            return None if (ROOT / "benchmarks" / "pipe.py").exists() else "it is gone"
        case ["python", "-m", "benchmarks", *flags]:
            known = _flags_of_the_benchmarks()
            return next((f"no option {flag}" for flag in flags if flag.startswith("-") and flag not in known), None)
        case ["python", script]:
            return None if (ROOT / script).exists() else f"no script {script}"
        case _:
            return "nobody here knows this command"


def _flags_of_the_benchmarks() -> set[str]:
    source = (ROOT / "benchmarks" / "__main__.py").read_text(encoding="utf-8")
    return set(re.findall(r'"(--[a-z-]+)"', source))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_is_there(page: Path) -> None:
    # What stands in square brackets in a usage line is a choice, not a word.
    wrong = {" ".join(command): why for command in commands(page) if not any(word.startswith("[--") for word in command) and (why := unknown(command))}
    assert not wrong


def anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_no_page_knows_the_machine_it_was_written_on(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert not re.search(r"/(home|root|tmp|work)/", text)


def test_a_clean_clone_needs_nothing_but_make() -> None:
    listed = subprocess.run(["make", "--dry-run", "--always-make", "test"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout
    assert "-m venv" in listed and "pip install" in listed and "-m pytest" in listed
    assert {"run", "test", "bench", "check", "docs", "crash", "asan", "clean"} <= TARGETS


def test_every_make_target_says_what_it_is() -> None:
    told = set(re.findall(r"@echo 'make (\w+)", MAKEFILE))
    assert told == TARGETS - {"help"}


def test_ci_runs_make_test() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert re.search(r"^exec make test\b", script.read_text(encoding="utf-8"), re.MULTILINE)


def test_benchmarks_answer_for_help() -> None:
    run = subprocess.run([sys.executable, "-m", "benchmarks", "--help"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    if "ModuleNotFoundError" in run.stderr:
        pytest.skip("the bench extra is not installed here")
    assert run.returncode == 0 and run.stdout.count("example:")


# --- names


def is_there(span: str) -> bool:
    """Whether a code span of the feature table names something that exists."""
    if span.startswith(("overspill ", "make ")):
        return unknown(shlex.split(span)) is None
    if extra := re.fullmatch(r"overspill\[(\w+)\]", span):
        return extra[1] in EXTRAS
    if "/" in span:
        return (ROOT / span).exists()
    name = re.match(r"[\w.]+", span)
    assert name, span
    owner: object = overspill
    for part in name[0].split("."):
        if owner is overspill and not hasattr(overspill, part):
            return part in OPTION_NAMES or hasattr(overspill.HybridQueue, part)
        if not hasattr(owner, part):
            return False
        owner = getattr(owner, part)
    return True


@pytest.mark.parametrize("row", table_rows(section(ROOT / "README.md", "## What it does")), ids=lambda row: row[1][:40])
def test_feature_is_there_when_the_table_says_done_and_not_when_it_says_planned(row: list[str]) -> None:
    _, _, here, state = row
    spans = code_spans(here)
    if state == "done":
        assert all(is_there(span) for span in spans), row
    elif state == "planned":
        assert not all(is_there(span) for span in spans), f"it is there: {row}"


@pytest.mark.parametrize("name", ["README.md", "docs/promises.md"])
def test_classes_named_on_the_page_are_public(name: str) -> None:
    planned = {span for row in table_rows(section(ROOT / "README.md", "## What it does")) if row[3] == "planned" for span in code_spans(row[2])}
    for span in code_spans(prose(ROOT / name)):
        if re.fullmatch(r"[A-Z][a-z]+[A-Z]\w*(\.\w+)?", span) and span not in planned:
            assert is_there(span), span


@pytest.mark.parametrize("name", ["README.md", "docs/promises.md"])
def test_promises_are_there_for_every_durability(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    for durability in overspill.Durability:
        assert any(f"`{durability.name}`" in line for line in tables)


def test_a_place_in_line_costs_what_the_page_says() -> None:
    queue = overspill.HybridQueue(memory_size=1000)
    for _ in range(200):
        queue.enqueue(b"x")
    for _ in range(200):
        queue.dequeue()
    block = queue.compact_memory()  # the one that was kept for re-use: 64 entries and a pointer
    assert (block - 8) / 64 == 88
    assert "costs 88 bytes" in (ROOT / "docs" / "promises.md").read_text(encoding="utf-8")
