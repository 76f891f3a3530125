"""
Write the exports of Windows' python3.dll, the stable ABI, as a module definition.

Usage: python3_def.py VERSION [--forward]   (--forward: for a python3.dll that hands all on to the
DLL of that version, as the one that CPython ships does)
"""

from __future__ import annotations

import sys

from abi3info import DATAS, FUNCTIONS


def definition(version: tuple[int, int], *, forward: bool = False) -> str:
    """Return the text of the file."""
    lines = ['LIBRARY "python3.dll"', "EXPORTS"]
    real = "python{}{}".format(*version)
    for table, suffix in ((FUNCTIONS, ""), (DATAS, " DATA")):
        symbols = sorted(
            symbol.name
            for symbol, info in table.items()
            if (info.added.major, info.added.minor) <= version
            and (info.ifdef is None or info.ifdef.windows is True)
        )
        lines += [f"  {name}{f'={real}.{name}' if forward else ''}{suffix}" for name in symbols]
    return "\n".join(lines) + "\n"


def main() -> None:
    major, minor = sys.argv[1].split(".")
    sys.stdout.write(definition((int(major), int(minor)), forward="--forward" in sys.argv))


if __name__ == "__main__":
    main()
