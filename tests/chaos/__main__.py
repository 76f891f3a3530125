"""Run random jobs: `python tests/chaos --jobs 1000`. See CONTRIBUTING.md."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from chaos import command, launcher  # noqa: E402 - found by the line above

if __name__ == "__main__":
    job = command.main()
    if job is not None:
        # This process is a launcher now, and ends as one.
        launcher.main(*job)
