"""The architecture page against the code: invariants, files and names."""

from __future__ import annotations

import re

from pages import ROOT, code_spans, prose

PAGE = ROOT / "ARCHITECTURE.md"
PACKAGE = ROOT / "src" / "overspill"
SOURCES = {path: path.read_text(encoding="utf-8") for suffix in ("py", "pyx", "pxd") for path in PACKAGE.rglob(f"*.{suffix}")}


def test_invariants_are_numbered_without_a_gap() -> None:
    numbers = [int(number) for number in re.findall(r"^- \*\*I(\d+)\*\*", PAGE.read_text(encoding="utf-8"), re.MULTILINE)]
    assert numbers == list(range(1, len(numbers) + 1)) and numbers


def test_every_invariant_that_the_code_cites_is_on_the_page() -> None:
    listed = set(re.findall(r"^- \*\*(I\d+)\*\*", PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    cited = {(number, path.name) for path, text in SOURCES.items() for number in re.findall(r"\b(I\d+)\b[:;,)]", text)}
    assert {number for number, _ in cited} >= {"I1", "I2", "I3"}
    assert not {(number, name) for number, name in cited if number not in listed}


def test_files_named_on_the_page_are_there() -> None:
    named = {span.split(":")[0] for span in code_spans(prose(PAGE)) if re.search(r"\.(py|pyx|pxd)\b", span)}
    assert len(named) > 15
    assert not {name for name in named if not (PACKAGE / name).exists() and not (ROOT / name).exists()}


def test_names_on_the_page_are_in_the_code() -> None:
    everything = "\n".join(SOURCES.values())
    for span in code_spans(prose(PAGE)):
        for name in re.findall(r"\b_?[a-z]+(?:_[a-z]+)+\b", span):
            assert re.search(rf"\b{name}\b", everything), name
        if owner := re.fullmatch(r"([A-Z]\w+)\.(\w+)", span):
            assert re.search(rf"^(cdef )?class {owner[1]}\b", everything, re.MULTILINE), span
            assert re.search(rf"\b(def|cdef .*) {owner[2]}\(", everything), span
