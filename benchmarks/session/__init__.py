"""The kernel session alone: an in-memory tree served by each of our sessions and by a C program on libfuse.

`measure(rounds, ...)` runs it and `rows(...)` makes the rows of benchmarks/results.json (work "session"):

    from benchmarks.session.compare import measure
    from benchmarks.session.results import rows

Alone: `.venv/bin/python -m benchmarks.session --rounds 5 [--cases stat,small] [--quick]`.
"""
