"""What both kinds of data sets are: objects of OSS, named in one of four ways, and delivered to the training code."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Self

from csi.torch import sources
from csi.torch.catalogue import Entry
from csi.torch.connection import Connection, connect
from csi.torch.delivery import Delivery, Transform, identity
from csi.torch.manifests import Parser
from csi.torch.sources import Manifest
from csi.torch.tally import DatasetStatistics


class OssDataset:
    """The `options` of its constructors are those of the class. Knows no PyTorch: who inherits is a data set of that as
    well."""

    def __init__(
        self,
        source: Sequence[Entry] | Manifest,
        connection: Connection,
        *,
        transform: Transform = identity,
        on_error: str = "raise",
    ) -> None:
        self._source = source
        self._delivery = Delivery(connection, transform, on_error)

    @classmethod
    def from_prefix(
        cls,
        oss_uri: str,
        endpoint: str,
        *,
        cred_path: str = "",
        cred_provider: object | None = None,
        config_path: str = "",
        transform: Transform = identity,
        region: str = "",
        on_error: str = "raise",
        **options: Any,
    ) -> Self:
        """All objects whose keys begin like the address `oss_uri`.

        Raises InvalidOption, CredentialsMissing, a StoreError when listing fails.
        """
        connection = connect(
            endpoint, cred_path=cred_path, cred_provider=cred_provider, config_path=config_path, region=region
        )
        return cls(sources.listed(oss_uri, connection), connection, transform=transform, on_error=on_error, **options)

    @classmethod
    def from_objects(
        cls,
        object_uris: str | Iterable[str],
        endpoint: str,
        *,
        cred_path: str = "",
        cred_provider: object | None = None,
        config_path: str = "",
        transform: Transform = identity,
        region: str = "",
        on_error: str = "raise",
        **options: Any,
    ) -> Self:
        """The objects of these addresses. Makes no request."""
        connection = connect(
            endpoint, cred_path=cred_path, cred_provider=cred_provider, config_path=config_path, region=region
        )
        return cls(sources.named(object_uris), connection, transform=transform, on_error=on_error, **options)

    @classmethod
    def from_manifest_file(
        cls,
        manifest_file_path: str,
        manifest_parser: Parser,
        oss_base_uri: str,
        endpoint: str,
        *,
        cred_path: str = "",
        cred_provider: object | None = None,
        config_path: str = "",
        transform: Transform = identity,
        region: str = "",
        on_error: str = "raise",
        **options: Any,
    ) -> Self:
        """The objects that a manifest names, with their labels. OssMapDataset reads it once, here, and
        OssIterableDataset while the samples are read.

        Raises ManifestMalformed with the number of the line.
        """
        manifest = Manifest(manifest_file_path, manifest_parser, oss_base_uri)
        connection = connect(
            endpoint, cred_path=cred_path, cred_provider=cred_provider, config_path=config_path, region=region
        )
        source = cls._source_of(manifest, connection)
        return cls(source, connection, transform=transform, on_error=on_error, **options)

    @classmethod
    def from_tar(
        cls,
        tar_uri: str,
        tar_index_uri: str,
        endpoint: str,
        *,
        cred_path: str = "",
        cred_provider: object | None = None,
        config_path: str = "",
        transform: Transform = identity,
        region: str = "",
        on_error: str = "raise",
        **options: Any,
    ) -> Self:
        """The members of a tar archive, of which `generate_tar_archive` made the index; labelled by their numbers.

        Raises ManifestMalformed when the index is not that of the archive.
        """
        connection = connect(
            endpoint, cred_path=cred_path, cred_provider=cred_provider, config_path=config_path, region=region
        )
        samples = sources.archived(tar_uri, tar_index_uri, connection)
        return cls(samples, connection, transform=transform, on_error=on_error, **options)

    def statistics(self) -> DatasetStatistics:
        """What was read and skipped so far, by this process and the workers."""
        return self._delivery.statistics()

    def last_of(self, process: int) -> str:
        """The address of the sample that a worker was given last; '' when there was none."""
        return self._delivery.tally.noted(process)

    @classmethod
    def _source_of(cls, manifest: Manifest, connection: Connection) -> Sequence[Entry] | Manifest:
        """What a data set of this class keeps of a manifest."""
        raise NotImplementedError
