"""Plain curl as a limit: the same bytes to /dev/null over keep-alive connections, with the report of the load program.

curl.py ENDPOINT ranges PATH SIZE CONNECTIONS       one object, in as many parallel ranges
curl.py ENDPOINT files PREFIX COUNT CONNECTIONS     PREFIX000000 and up
"""

from __future__ import annotations

import json
import subprocess
import sys
import time

REPORT = r'write-out = "%{http_code} %{size_download}\n"'


def ranges(url: str, size: int, connections: int) -> list[str]:
    """The lines of a curl configuration, a block for each transfer."""
    part = -(-size // connections)
    starts = range(0, size, part)
    return "next\n".join(
        f'url = "{url}"\noutput = "/dev/null"\nrange = "{start}-{min(start + part, size) - 1}"\n{REPORT}\n'
        for start in starts
    ).splitlines()


def files(prefix: str, count: int) -> list[str]:
    return [REPORT, *(line for n in range(count) for line in (f'url = "{prefix}{n:06d}"', 'output = "/dev/null"'))]


def main() -> None:
    endpoint, what, path, amount, connections = sys.argv[1:6]
    url = endpoint + path
    lines = ranges(url, int(amount), int(connections)) if what == "ranges" else files(url, int(amount))
    command = ["curl", "-q", "-s", "-Z", "--parallel-max", connections, "-K", "-"]
    start = time.monotonic()
    done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - start
    answers = [line.split() for line in done.stdout.splitlines()]
    good = [int(size) for status, size in answers if status in ("200", "206")]
    error = "" if done.returncode == 0 and len(good) == len(answers) else f"curl: {done.returncode} {done.stderr[:100]}"
    print(json.dumps({"seconds": seconds, "bytes": sum(good), "operations": len(good), "error": error}))


if __name__ == "__main__":
    main()
