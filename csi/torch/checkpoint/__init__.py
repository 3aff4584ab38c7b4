"""Checkpoints in a bucket: file objects for `torch.save` and `torch.load`.

checkpoint = OssCheckpoint(endpoint, cred_path=cred_path, config_path=config_path)
with checkpoint.writer("oss://bucket/model.pt") as writer:
    torch.save(model.state_dict(), writer)
with checkpoint.reader("oss://bucket/model.pt") as reader:
    model.load_state_dict(torch.load(reader))
"""

from __future__ import annotations

import os

from csi.torch.checkpoint.engine import Engine
from csi.torch.checkpoint.files import CheckpointReader, CheckpointWriter
from csi.torch.connection import Connection, connect
from csi.torch.uri import parse_object

__all__ = ["CheckpointReader", "CheckpointStore", "CheckpointWriter", "OssCheckpoint", "OssFiles"]


class OssFiles:
    """The objects of buckets as files. Pickles as its parameters; a process forked or spawned has an engine of its own.

    No lock: the engine of a process is found and made by single operations.
    """

    def __init__(self, connection: Connection) -> None:
        options = connection.configuration.checkpoint
        bound = options.concurrency + options.upload_concurrency
        self._connection = connection.with_bounds(connections=bound, timeout=options.timeout)
        self._engines: dict[int, Engine] = {}

    def __reduce__(self) -> tuple[object, ...]:
        return OssFiles, (self._connection,)

    @property
    def connection(self) -> Connection:
        return self._connection

    def reader(self, uri: str) -> CheckpointReader:
        """A file with what the object is now, which is asked for at once. Raises ObjectNotFound, …"""
        return CheckpointReader(parse_object(uri), self.engine)

    def writer(self, uri: str) -> CheckpointWriter:
        """A file that becomes the object when it is closed. Makes no request."""
        return CheckpointWriter(parse_object(uri), self.engine())

    def engine(self) -> Engine:
        """That of this process."""
        process = os.getpid()
        found = self._engines.get(process)
        if found is None:
            connection = self._connection
            made = Engine(connection.store, connection.configuration.checkpoint)
            found = self._engines.setdefault(process, made)
        return found


class CheckpointStore:
    """What training code makes to save and load by addresses, in whatever format. Pickles as its parameters."""

    def __init__(
        self,
        endpoint: str,
        cred_path: str = "",
        config_path: str = "",
        cred_provider: object | None = None,
        region: str = "",
    ) -> None:
        """`endpoint` '' is for addresses that name theirs; `cred_path` is a credential file, `config_path` the
        `config.json` of the guide. Raises InvalidOption, CredentialsMissing."""
        connection = connect(
            endpoint, cred_path=cred_path, cred_provider=cred_provider, config_path=config_path, region=region
        )
        self._files = OssFiles(connection)


class OssCheckpoint(CheckpointStore):
    """Checkpoints by their addresses: `oss://BUCKET/KEY`, `oss://BUCKET.ENDPOINT/KEY` or `/BUCKET/KEY`."""

    def reader(self, oss_uri: str) -> CheckpointReader:
        """For `torch.load`: seekable, its `size` known, one version of the object whatever happens to it meanwhile."""
        return self._files.reader(oss_uri)

    def writer(self, oss_uri: str) -> CheckpointWriter:
        """For `torch.save`: the object is replaced, whole, when the writer is closed."""
        return self._files.writer(oss_uri)
