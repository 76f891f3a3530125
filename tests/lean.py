"""Functions of ranks that import nothing before they are called."""

import sys


def write_modules(rank, path):
    modules = sorted(sys.modules)
    with open(path, "w") as file:
        file.write("\n".join(modules))


def write_late_view(rank, path, statement, probe):
    """Run a statement, and then import the module with the probes, and so multiprocessing."""
    assert "multiprocessing" not in sys.modules
    exec(statement)
    import probes

    probes.write_view(rank, path, getattr(probes, probe))
