"""The disk block cache: what was fetched of immutable object versions, kept on a disk of the node between restarts."""
