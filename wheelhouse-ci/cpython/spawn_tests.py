"""
CPython's own tests of the start method "spawn": its `test.test_multiprocessing_spawn`.

A module of its own because processes of the tests import it, to find what they are to run.
"""

from __future__ import annotations

from test import _test_multiprocessing

_test_multiprocessing.install_tests_in_module_dict(globals(), "spawn")
