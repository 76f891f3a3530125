from typing import NoReturn

def ended_well() -> None: ...
def guard(
    rank: int,
    job: str,
    features: int,
    pipe: int,
    launcher: int,
    board: int,
    world_size: int,
    /,
) -> bool: ...
def leave(code: int, /) -> NoReturn: ...
def mark(job: str, rank: int, /) -> None: ...
