"""
The main module of a launcher of start.py and payload.py.

Ranks import the main module of their launcher, so it has nothing in it; see ``_spawn_calls.py``.
"""

if __name__ == "__main__":
    from _spawn_calls import main

    main()
