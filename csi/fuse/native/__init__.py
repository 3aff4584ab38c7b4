"""The part of our own kernel session that runs without the interpreter's lock, in Cython.

`tables` are hash tables of what was published, `quick` answers requests from them, `answers` is their face to Python,
`device` reads and writes the descriptor. A function that runs without the interpreter's lock is `noexcept nogil`, takes
it nowhere while it holds a lock of ours, and touches nothing of Python. Built by setup.py; where it was not built, the
product serves with pyfuse3 (`csi/fuse/choice.py`).
"""
