"""The session benchmark: how samples become rows, and that its two trees, in C and in Python, are the same."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.session import tree
from benchmarks.session.cases import MB, OPERATIONS, Case, selected
from benchmarks.session.compare import Sample, Samples
from benchmarks.session.results import rows, tables
from csi.volume.units import FileHandle, InodeNumber

STAT, SMALL, BUSY = Case("stat", 4, OPERATIONS), Case("small", 4, OPERATIONS), Case("direct", 4, MB, busy=True)


def samples(*rates: float, quiet: float | None = None) -> list[Sample]:
    return [Sample(rate, 1.0, quiet) for rate in rates]


def test_the_better_of_the_c_programs_is_the_peer() -> None:
    measured: Samples = {
        STAT: {"own": samples(90, 95, 80), "c-single": samples(50, 60, 55), "c-multi": samples(100, 90, 100)}
    }

    (row,) = rows(measured, "own")

    assert (row.peer, row.ours, row.peer_value, row.value, row.bar) == ("c-multi", 90, 100, 0.9, 0.9)
    assert row.holds
    assert row.spread == (0.8, 1.056)


def test_small_files_are_held_against_pyfuse3_too() -> None:
    measured: Samples = {SMALL: {"own": samples(20), "pyfuse3": samples(10), "c-single": samples(20)}}

    by_peer = {row.peer: row for row in rows(measured, "own")}

    assert by_peer["c-single"].holds
    assert (by_peer["pyfuse3"].value, by_peer["pyfuse3"].bar, by_peer["pyfuse3"].holds) == (2.0, 2.5, False)


def test_a_busy_case_is_held_against_its_quiet_figure() -> None:
    measured: Samples = {BUSY: {"own": samples(70, quiet=100), "c-single": samples(1, quiet=100)}}

    (row,) = rows(measured, "own")

    assert (row.case, row.ours, row.peer_value, row.value, row.holds) == ("direct-4-busy", 70, 100, 0.7, True)


def test_there_is_a_table_for_quiet_cases_and_one_for_busy_ones() -> None:
    measured: Samples = {
        STAT: {"own": samples(1), "c-single": samples(2)},
        BUSY: {"own": samples(1, quiet=2), "c-single": samples(1, quiet=2)},
    }

    made = tables(measured, "own")

    assert [table.row_count for table in made] == [1, 1]


def test_cases_are_chosen_by_kind_name_or_class() -> None:
    assert {case.name for case in selected(frozenset({"stat"}))} == {"stat-1", "stat-4", "stat-8"}
    assert [case.name for case in selected(frozenset({"small-4"}))] == ["small-4"]
    assert all(case.busy for case in selected(frozenset({"busy"})))
    with pytest.raises(ValueError, match="no such case: fast"):
        selected(frozenset({"fast"}))


def test_the_tree_in_python_has_the_sizes_of_the_one_in_c() -> None:
    header = Path(tree.__file__).with_name("tree.h").read_text()
    values = {
        name: eval(re.sub(r"UL\b", "", text))
        for name, text in re.findall(r"#define (PAGE|SPAN|BIG_SIZE|SMALL_COUNT|SMALL_SIZE) (.+)", header)
    }

    ours = {name: getattr(tree, name) for name in values}

    assert ours == values
    assert len(values) == 5


def test_every_page_of_a_small_file_begins_with_its_number() -> None:
    memory = tree.MemoryTree()
    opened = memory.open_cached(InodeNumber(tree.FIRST_SMALL + 9_999), 0)
    assert opened is not None

    whole = memory.read_ready(FileHandle(opened.handle), 0, 1 << 20)

    assert whole is not None
    assert len(whole) == tree.SMALL_SIZE
    first = tree.small_start(9_999) // tree.PAGE
    begins = [int.from_bytes(whole[at : at + 8], "little") for at in range(0, tree.SMALL_SIZE, tree.PAGE)]
    assert begins == list(range(first, first + tree.SMALL_PAGES))
