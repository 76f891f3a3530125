"""With torch loaded, our exceptions are torch's as well. Run by `make test-torch`."""

from __future__ import annotations

import pickle
import sys

import pytest

import flamespawn
import jobs

torch_mp = pytest.importorskip("torch.multiprocessing")
torchs = sys.modules.get("torch.multiprocessing.spawn")


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
def test_messages_are_torchs(kind: str) -> None:
    """The same failure has the same words, up to the frames of the two libraries."""
    messages = []
    for module in (flamespawn, torch_mp):
        with pytest.raises(torchs.ProcessException) as caught:
            module.start_processes(fail_for_torch_or_us, (kind,), 1, start_method="fork")
        messages.append(
            [line for line in str(caught.value).splitlines() if not line.startswith("  ")]
        )

    assert messages[0] == messages[1]


def test_torch_tensors_are_arguments() -> None:
    """A CPU tensor arrives, and is shared as torch shares it."""
    torch = pytest.importorskip("torch")
    tensor = torch.zeros(4).share_memory_()

    flamespawn.start_processes(set_own_element, (tensor,), 4, start_method="spawn")

    assert tensor.tolist() == [1, 2, 3, 4]


def set_own_element(rank: int, tensor) -> None:
    tensor[rank] = rank + 1
