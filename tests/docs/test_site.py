"""The site builds offline from the pages and docstrings, without a warning."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pages import ROOT

import overspill


def test_site_builds_without_a_warning_and_every_public_name_is_in_the_reference(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet", "--fresh-env", "-d", tmp_path / "trees", "-b", "html", ROOT / "docs", tmp_path / "site"]
    done = subprocess.run(build, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    reference = "".join(page.read_text(encoding="utf-8") for page in (tmp_path / "site" / "reference").glob("*.html"))
    missing = [name for name in overspill.__all__ if f'.{name}"' not in reference and name not in ("KiB", "MiB", "GiB")]
    assert not missing
    assert "fonts.googleapis" not in reference  # a reader behind a closed network sees the same page
