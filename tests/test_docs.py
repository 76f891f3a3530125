"""The documentation: every Python snippet runs as a program."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def snippets() -> Iterator[pytest.param]:
    for page in PAGES:
        for token in MarkdownIt().parse(page.read_text()):
            if token.type == "fence" and token.info == "python":
                line = token.map[0] + 1
                forwards = "forward_signals" in token.content
                marks = [pytest.mark.posix("signals that are forwarded")] if forwards else []
                yield pytest.param(token.content, id=f"{page.name}:{line}", marks=marks)


@pytest.mark.parametrize("source", list(snippets()))
def test_snippets_run(source: str, tmp_path: Path) -> None:
    """A snippet, saved to a file and run, does what it says and complains about nothing."""
    script = tmp_path / "snippet.py"
    script.write_text(source)

    result = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, check=False
    )

    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout or "assert" in source
