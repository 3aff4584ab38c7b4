"""Runs pyjindosdk against the emulator in a process of its own (it is not fork-safe and keeps threads).

Reads its settings as JSON from standard input, prints what it saw as JSON.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from pyjindo import fs


def main() -> None:
    settings = json.load(sys.stdin)
    base = f"oss://{settings['bucket']}/"
    files = connect(settings, base)
    seen: dict[str, Any] = {}
    write(files, base + "a b/c+d&.txt", b"hello")
    seen["small"] = read(files, base + "a b/c+d&.txt").decode()
    big = bytes(i % 251 for i in range(1 << 20)) * 20
    write(files, base + "big", big)
    seen["big is whole"] = read(files, base + "big") == big
    stream = files.open(base + "big", "rb")
    seen["pread is right"] = stream.pread(1000, 9_000_001) == big[9_000_001:9_001_001]
    stream.close()
    seen["listed"] = sorted(found.path for found in files.listdir(base))
    files.mkdir(base + "d/e")
    files.rename(base + "big", base + "d/moved")
    seen["renamed"] = [files.exists(base + "big"), files.exists(base + "d/moved")]
    files.copy_file(base + "a b/c+d&.txt", base + "copy")
    seen["copied size"] = files.get_file_info(base + "copy").size
    seen["everything"] = sorted(found.path for found in files.listdir(base, True))
    files.remove(base + "d/moved")
    seen["removed"] = not files.exists(base + "d/moved")
    json.dump(seen, sys.stdout)


def connect(settings: dict[str, Any], base: str) -> fs.FileSystem:
    config = fs.Config()
    config.set("fs.oss.endpoint", f"127.0.0.1:{settings['port']}")
    config.set("fs.oss.accessKeyId", settings["access_key_id"])
    config.set("fs.oss.accessKeySecret", settings["access_key_secret"])
    config.set("logger.dir", settings["logs"])
    config.setBool("fs.oss.second.level.domain.enable", True)
    config.setInt32("fs.oss.retry.count", 1)
    if settings["signer"] == 1:
        config.setInt32("fs.oss.signer.version", 1)
    if settings["region"]:
        config.set("fs.oss.region", settings["region"])
    return fs.connect(base, "root", config)


def write(files: fs.FileSystem, path: str, data: bytes) -> None:
    stream = files.open(path, "wb")
    stream.write(data)
    stream.close()


def read(files: fs.FileSystem, path: str) -> bytes:
    stream = files.open(path, "rb")
    try:
        return bytes(stream.read())
    finally:
        stream.close()


if __name__ == "__main__":
    main()
