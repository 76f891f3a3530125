"""The targets of targets.toml."""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent


@dataclass(frozen=True)
class Target:
    """One row of the list; targets.toml says what the fields mean."""

    name: str
    zig: str
    host: str
    tags: tuple[str, ...]
    cibuildwheel: str
    runner: str
    backend: bool

    @property
    def system(self) -> str:
        return self.host.partition("-")[0]

    @property
    def machine(self) -> str:
        return self.zig.partition("-")[0]

    @property
    def is_musl(self) -> bool:
        return self.zig.endswith("musl")

    def wheel_in(self, folder: Path) -> Path:
        """
        Return the wheel for this target.

        Raises:
            SystemExit: there is none, or there are several.
        """
        found = [
            wheel
            for wheel in sorted(folder.glob("*.whl"))
            if set(wheel.stem.rpartition("-")[2].split(".")) == set(self.tags)
        ]
        if len(found) != 1:
            msg = f"{folder} has {len(found)} wheels for {self.name} ({'.'.join(self.tags)})"
            raise SystemExit(msg)
        return found[0]


@dataclass(frozen=True)
class Matrix:
    """All of the list."""

    python: str
    pythons: tuple[str, ...]
    max_bytes: int
    targets: tuple[Target, ...]
    # For these there are no wheels.
    compiled: tuple[Target, ...]

    def identifiers(self, target: Target) -> list[str]:
        """Return what cibuildwheel calls its builds and tests for *target*."""
        return [f"cp{python.replace('.', '')}-{target.cibuildwheel}" for python in self.pythons]

    def select(self, names: list[str], targets: tuple[Target, ...] = ()) -> list[Target]:
        """
        Return the targets of these names; where there are none, all of *targets*, or of the wheels.

        Raises:
            SystemExit: one is not in the list.
        """
        targets = targets or self.targets
        known = {target.name: target for target in targets}
        for name in names:
            if name not in known:
                msg = f"{name} is not a target: {', '.join(known)}"
                raise SystemExit(msg)
        return [known[name] for name in names] or list(targets)


def load() -> Matrix:
    with (HERE / "targets.toml").open("rb") as file:
        data = tomllib.load(file)
    rows = {
        kind: tuple(Target(**row | {"tags": tuple(row["tags"])}) for row in data.pop(kind))
        for kind in ("target", "compiled")
    }
    return Matrix(
        **data | {"pythons": tuple(data["pythons"])},
        targets=rows["target"],
        compiled=rows["compiled"],
    )


def main() -> None:
    """Print the targets with a backend as a matrix for GitHub's workflows."""
    matrix = load()
    rows = [
        {
            "name": target.name,
            "runner": target.runner,
            "cibuildwheel": " ".join(matrix.identifiers(target)),
        }
        for target in matrix.targets
        if target.backend
    ]
    json.dump({"include": rows}, sys.stdout)


if __name__ == "__main__":
    main()
