"""With torch: our exceptions are its own as well, and tensors can be sent. `make test-torch`."""

from __future__ import annotations

import json
import os
import pickle
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import conftest
import flamespawn
import jobs
import mp_jobs
import payloads
from flamespawn import _payload

# Threads for large tensors, of numpy and of torch, would stay.
os.environ["OPENBLAS_NUM_THREADS"] = "1"
torch_mp = pytest.importorskip("torch.multiprocessing")
torchs = sys.modules.get("torch.multiprocessing.spawn")
torch_mp.torch.set_num_threads(1)


@pytest.mark.parametrize(
    ("function", "argument", "name"),
    [
        (jobs.raise_value_error, "wrong", "ProcessRaisedException"),
        (jobs.exit_with, 3, "ProcessExitedException"),
    ],
)
def test_torchs_except_clauses_catch_ours(function, argument, name) -> None:
    """`except torch.multiprocessing.Process...Exception` catches what our join raises."""
    with pytest.raises(getattr(torch_mp, name)) as caught:
        flamespawn.start_processes(jobs.call_in, (1, function, argument), 2, start_method="fork")

    error = caught.value
    assert isinstance(error, getattr(flamespawn, name))
    assert isinstance(error, torchs.ProcessException)
    assert type(error).__name__ == name
    assert (error.error_index, error.error_pid) == (1, error.fates[1].pid)

    back = pickle.loads(pickle.dumps(error))
    assert type(back) is type(error)
    assert (back.msg, back.error_index, back.error_pid) == (error.msg, 1, error.pid)
    assert back.fates == error.fates


def fail_for_torch_or_us(rank: int, kind: str) -> None:
    if kind == "raise":
        jobs.raise_value_error()
    if kind == "exit":
        jobs.exit_with(3)
    jobs.die(9)


@pytest.mark.parametrize("kind", ["raise", "exit", "die"])
def test_messages_are_torchs(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same failure has the same words, up to the frames of the two libraries."""
    # Where torch may leave the file that it has the traceback in.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    messages = []
    for module in (flamespawn, torch_mp):
        with pytest.raises(torchs.ProcessException) as caught:
            module.start_processes(fail_for_torch_or_us, (kind,), 1, start_method="fork")
        messages.append(
            [line for line in str(caught.value).splitlines() if not line.startswith("  ")]
        )

    assert messages[0] == messages[1]


# -------------------------------------------------------------------------------- what can be sent

RANKS = 4

# How a value is made, and what in it is a tensor of as many elements as there are ranks.
VALUES = {
    "tensor": ("torch.zeros(4)", "value"),
    "of a large one": ("torch.zeros(50_000_000 // 4)", "value[-4:]"),
    "shared before": ("torch.zeros(4).share_memory_()", "value"),
    "view": ("torch.zeros(2, 8).t()[2:6, 1]", "value"),
    "integers": ("torch.zeros(4, dtype=torch.int8)", "value"),
    "requires a gradient": ("torch.zeros(4, requires_grad=True)", "value.detach()"),
    "in containers": ("{'a': [(1, {2: torch.zeros(4)})]}", "value['a'][0][1][2]"),
    "parameter": ("torch.nn.Parameter(torch.zeros(4))", "value.data"),
    "frozen": ("torch.nn.Parameter(torch.zeros(4), requires_grad=False)", "value.data"),
    "module": ("zeros(torch.nn.Linear(4, 1))", "value.weight.data[0]"),
    "nested module": ("torch.nn.Sequential(torch.nn.BatchNorm1d(4))", "value[0].running_mean"),
    "state": ("zeros(torch.nn.Linear(4, 1)).state_dict()", "value['weight'][0]"),
    "storage": (
        "torch.zeros(4).untyped_storage()",
        "torch.tensor([], dtype=torch.uint8).set_(value)[::4]",
    ),
}


def zeros(module):
    for parameter in module.parameters():
        parameter.data.zero_()
    return module


def evaluate(source: str, **names: object) -> Any:
    import torch

    return eval(source, {"torch": torch, "zeros": zeros, **names})


def make_values() -> dict[str, Any]:
    return {name: evaluate(how) for name, (how, _) in VALUES.items()}


def tensors(values: dict[str, Any]) -> dict[str, Any]:
    return {name: evaluate(what, value=values[name]) for name, (_, what) in VALUES.items()}


def gradients(values: dict[str, Any]) -> list[Any]:
    """Return of each value its type, and whether it requires a gradient."""
    return [(type(value), getattr(value, "requires_grad", None)) for value in values.values()]


def write_own_elements(rank: int, values: dict[str, Any], again: Any, barrier: Any) -> None:
    """Write where nobody else does, and then see what the others have written."""
    assert gradients(values) == gradients(make_values())
    assert again is values["tensor"]
    for tensor in tensors(values).values():
        tensor[rank] += rank + 1
    barrier.wait(payloads.PATIENCE)
    for name, tensor in tensors(values).items():
        assert tensor.tolist() == [1, 2, 3, 4], name
    barrier.wait(payloads.PATIENCE)


def test_tensors_are_shared() -> None:
    """What a rank writes to a CPU tensor, whatever it is part of, all others and we can see."""
    values = make_values()
    barrier = torch_mp.get_context("spawn").Barrier(RANKS)

    flamespawn.spawn(write_own_elements, (values, values["tensor"], barrier), RANKS)

    seen = [tensor.tolist() for tensor in tensors(values).values()]
    assert seen == [[1, 2, 3, 4]] * len(VALUES)


NAMED_FILES = """
import gc, json, os, sys
import flamespawn, payloads, torch, torch.multiprocessing
import test_torch
from flamespawn import _payload

def named():
    return sorted(name for name in os.listdir("/dev/shm") if f"torch_{os.getpid()}_" in name)

if __name__ == "__main__":
    torch.multiprocessing.set_sharing_strategy("file_system")
    parts = []
    seal_with = _payload.Payload.seal_with
    _payload.Payload.seal_with = lambda payload, header: (
        parts.append(len(payload.parts)), seal_with(payload, header))[1]
    values = test_torch.make_values()
    barrier = torch.multiprocessing.get_context("spawn").Barrier(4)
    flamespawn.spawn(
        test_torch.write_own_elements, (values, values["tensor"], barrier), int(sys.argv[1])
    )
    seen = [tensor.tolist() for tensor in test_torch.tensors(values).values()]
    shared = len(named())
    del values
    gc.collect()
    print(json.dumps([parts, seen, shared, named()]))
"""


def test_tensors_in_named_files(run_launcher: Callable[..., Any]) -> None:
    """With the other sharing strategy, too, tensors are shared, and no file is left over."""
    launcher = run_launcher(NAMED_FILES, RANKS)

    out, err = launcher.communicate(timeout=conftest.WATCHDOG_SECONDS)

    assert err == ""
    parts, seen, shared, left = json.loads(out)
    assert parts == [RANKS]
    assert seen == [[1, 2, 3, 4]] * len(VALUES)
    assert shared >= len(VALUES)
    assert left == []
    assert not [name for name in os.listdir("/dev/shm") if f"torch_{launcher.pid}_" in name]


def send_tensor(rank: int, queue: Any, event: Any) -> None:
    import torch

    queue.put(torch.full((3,), rank))
    # A tensor in a queue is fetched from the process that has put it there.
    assert event.wait(payloads.PATIENCE)


def test_queues_of_torch() -> None:
    """Tensors come back through a queue of torch.multiprocessing, and an event is seen."""
    context = torch_mp.get_context("spawn")
    queue, event = context.Queue(), context.Event()

    ranks = flamespawn.spawn(send_tensor, (queue, event), 2, join=False)
    got = sorted(queue.get().tolist() for _ in range(2))
    event.set()
    with ranks:
        pass

    assert got == [[0, 0, 0], [1, 1, 1]]
    queue.close()
    queue.join_thread()


def test_functions_of_torch_that_consume() -> None:
    """What is looked for in a pickle are names of functions that torch has."""
    reductions = sys.modules["torch.multiprocessing.reductions"]

    for word in _payload._CONSUMED_BY_LOADING:
        assert hasattr(reductions, word.decode())


def test_what_loading_consumes(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is like a CUDA tensor is pickled for each rank, and each rank loads its own."""
    monkeypatch.setattr(payloads.Consumed, "pickled", 0)

    flamespawn.spawn(payloads.check_own_load, (payloads.Consumed(), [1, 2, 3, 4]), RANKS)

    assert payloads.Consumed.pickled == RANKS


def test_tensors_that_torch_refuses() -> None:
    """The error of torch about a tensor that is the result of others is raised as it is."""
    torch = pytest.importorskip("torch")
    result = torch.zeros(4, requires_grad=True) * 2

    with pytest.raises(RuntimeError, match="non-leaf tensor"):
        flamespawn.spawn(jobs.nothing, (result,), 2)


BATCHES = [([number, number + 1], [True, True]) for number in (0, 2, 4)]


def test_a_data_loader() -> None:
    """The workers of a DataLoader come from the context that it is given, and go with it."""
    pytest.importorskip("torch.utils.data")

    assert mp_jobs.load_all(flamespawn.get_context()) == BATCHES


def test_a_data_loader_whose_worker_dies() -> None:
    """A worker of ours that is gone is noticed by torch as any other."""
    pytest.importorskip("torch.utils.data")

    with pytest.raises(RuntimeError, match=r"DataLoader worker .* exited unexpectedly"):
        mp_jobs.load_all(flamespawn.get_context(), culprit=3)


DATA_LOADER = """
import flamespawn, mp_jobs

if __name__ == "__main__":
    flamespawn.install()
    print(mp_jobs.load_all("spawn"))
"""


def test_a_data_loader_after_install(run_launcher: Callable[..., Any]) -> None:
    """After install, a DataLoader that asks for "spawn" by its name has workers of ours."""
    launcher = run_launcher(DATA_LOADER)

    out, err = launcher.communicate(timeout=60)

    assert (out, err) == (f"{BATCHES}\n", "")
