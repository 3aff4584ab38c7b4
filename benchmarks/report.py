"""benchmarks/RESULTS.md from samples: medians, spread, and ratios to the peers of the same run."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.measure import Sample

GB = 1_000_000_000
MIB = 1 << 20


def machine() -> str:
    """Processor, cores, memory and kernel of this machine."""
    model = next(
        (
            line.partition(":")[2].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return f"{model}, {os.cpu_count()} cores, {memory:.0f} GiB, Linux {platform.release()}"


def spread(values: Sequence[float], digits: int) -> str:
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}–{max(values):.{digits}f}]"


def table(samples: Mapping[str, Sequence[Sample]], unit: str, rate: Mapping[str, Sequence[float]]) -> list[str]:
    """One workload, a row per client. Ratios are ours to that client's: above 1 is faster, or dearer in CPU, memory."""
    ours = statistics.median(rate["ossfuse"])
    our_cpu = statistics.median(sample.cpu / (sample.bytes_read / GB) for sample in samples["ossfuse"])
    our_rss = statistics.median(sample.peak_rss for sample in samples["ossfuse"])
    lines = [
        f"| client | {unit}, median [min–max] | ours ÷ it | daemon CPU-s/GB | ours ÷ it | peak RSS MiB | ours ÷ it |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, runs in samples.items():
        cpu = [sample.cpu / (sample.bytes_read / GB) for sample in runs]
        rss = [sample.peak_rss / MIB for sample in runs]
        lines.append(
            f"| {name} | {spread(rate[name], 0)} | {ours / statistics.median(rate[name]):.2f} "
            f"| {spread(cpu, 2)} | {our_cpu / max(statistics.median(cpu), 1e-9):.2f} "
            f"| {spread(rss, 0)} | {our_rss / MIB / max(statistics.median(rss), 1e-9):.2f} |"
        )
    return lines


def write_section(results: Path, name: str, lines: Sequence[str]) -> None:
    """Put `lines` where the section `name` stands in the results, or at the end; other scripts' sections stay."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    text = results.read_text() if results.exists() else "# Results\n"
    section = "\n".join([begin, *lines, end])
    before, found, rest = text.partition(begin)
    after = rest.partition(end)[2] if found else "\n"
    results.write_text(f"{before.rstrip()}\n\n{section}{after}")
