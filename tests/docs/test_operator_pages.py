"""The pages for operators against the code: every metric, every alert, every option, and the configuration files on them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from pages import ROOT, blocks, section, table_rows

from overspill import metrics
from overspill.cli import main
from overspill.config import load_queues, problems_in
from overspill.metrics.catalogue import METRICS
from overspill.metrics.folder import FOLDER_METRICS
from overspill.options import OPTION_NAMES, Options, from_words

OPERATIONS = ROOT / "docs" / "operations.md"
CONFIGURATION = ROOT / "docs" / "configuration.md"


def test_the_table_of_metrics_is_the_catalogue() -> None:
    table = table_rows(section(OPERATIONS, "### Of an open queue"))
    assert table == [[f"`{m.shown}`", m.kind.value, f"`{m.label}`" if m.label else "", m.meaning, m.after.value] for m in METRICS]


def test_the_table_of_folders_is_what_they_tell() -> None:
    table = table_rows(section(OPERATIONS, "### Of a folder").partition("\n## ")[0])
    assert table[:-1] == [[f"`{m.name}`", "gauge", m.meaning] for m in FOLDER_METRICS]
    assert table[-1][0] == "`overspill_state`"


def test_every_alert_has_a_line_that_says_what_to_do() -> None:
    rules = [rule["alert"] for group in yaml.safe_load(metrics.rules())["groups"] for rule in group["rules"]]
    table = table_rows(section(OPERATIONS, "## Alerts"))
    assert [row[0].strip("`") for row in table] == rules
    assert all(len(row[2]) > 15 for row in table)


def test_every_option_is_on_the_page_with_its_default() -> None:
    table = {row[0].strip("`"): row[1].strip("`") for row in table_rows(section(CONFIGURATION, "## Options"))}
    assert tuple(table) == OPTION_NAMES
    words = {"none": None, "false": False}
    for field in dataclasses.fields(Options):
        said = table[field.name]
        value = words[said] if said in words else from_words(field.name, int(said) if said.isdecimal() else float(said) if said == "1.0" else said)
        assert value == field.default, field.name


def files_on_the_page(tmp_path: Path) -> list[Path]:
    found = []
    for n, block in enumerate(block for block in blocks(CONFIGURATION) if block.language == "toml"):
        found.append(tmp_path / f"{n}.toml")
        found[-1].write_text(block.text)
    return found


def test_the_files_on_the_page_can_be_used_and_show_every_option(tmp_path: Path) -> None:
    files = files_on_the_page(tmp_path)
    assert len(files) == 2
    for file in files:
        assert problems_in(file) == []
    shown = {key for options in load_queues(files[-1]).values() for key in options}
    assert shown == set(OPTION_NAMES) - {"on_expired", "on_dropped"}


def test_what_the_page_says_is_wrong_with_its_file_is_what_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (source,) = [block for block in blocks(CONFIGURATION) if block.language == "python" and "wrong.toml" in block.text]
    (shown,) = [block for block in blocks(CONFIGURATION) if block.language == "console"]
    exec(source.text, {"Path": Path})
    line, _, said = shown.text.partition("\n")
    command, _, _ = line.partition(" || ")
    ran = CliRunner().invoke(main, command.split()[2:])
    assert f"{ran.stdout}it ends with {ran.exit_code}\n" == said
