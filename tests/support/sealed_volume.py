"""A volume used in a process that can import nothing any more, as a sidecar without rights may find itself.

Run as a program: `python -m tests.support.sealed_volume VOLUME.json CREDENTIALS_DIRECTORY`. It prints `sealed: OK`.
"""

import sys
from pathlib import Path
from typing import Any, NoReturn

import csi.sidecar.assemble as assembly
import csi.sidecar.main  # noqa: F401 - everything a sidecar loads
from csi.errors import StoreError
from csi.fs.types import ROOT_INODE, Caller
from csi.volume.parse import parse_volume


class Sealed:
    """Refuses every import (importlib's meta path finder)."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> NoReturn:
        raise AssertionError(f"{name} is imported late")


def main(endpoint: str, bucket: str, credentials: str) -> None:
    spec = parse_volume({"bucket": bucket, "url": endpoint, "path": "/data/"}, cpu_count=2).spec
    sys.meta_path.insert(0, Sealed())
    provider = assembly.credentials_of(spec, credentials, {})
    store = assembly.OssClient(spec.location, spec.http, spec.write, provider)
    ledger = assembly.MemoryLedger(assembly.budget_for(spec.resources.memory_limit))
    engine = assembly.DataEngine(store, read=spec.read, write=spec.write, ledger=ledger)
    filesystem = assembly.Filesystem(
        store,
        engine,
        prefix=spec.location.prefix,
        arguments=spec.arguments,
        ownership=spec.ownership,
        write=spec.write,
        read_only=False,
    )
    caller = Caller()
    _, opened = filesystem.create(ROOT_INODE, "Übung".encode(), 0o644, 1, caller)
    filesystem.write(opened.handle, 0, b"x" * 3_000_000)
    filesystem.flush(opened.handle)
    filesystem.release(opened.handle)
    directory = filesystem.opendir(ROOT_INODE)
    names = [entry.name for entry in filesystem.readdir(directory, 0)]
    assert "Übung".encode() in names, names
    found = filesystem.lookup(ROOT_INODE, "Übung".encode(), caller)
    again = filesystem.open(found.attributes.inode, 0, caller)
    assert len(filesystem.read(again.handle, 0, 1 << 20)) == 1 << 20
    filesystem.getxattr(found.attributes.inode, b"user.oss.etag")
    (Path(credentials) / "akSecret").write_text("wrong-secret-now")
    provider.refresh()
    try:
        store.head("data/elsewhere")  # type: ignore[arg-type]
    except StoreError as error:
        assert str(error)
    else:
        raise AssertionError("a wrong key was accepted")
    filesystem.close()
    engine.close()
    store.close()
    print("sealed: OK")


if __name__ == "__main__":
    main(*sys.argv[1:])
