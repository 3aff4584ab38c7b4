"""Where objects are kept: an ordered index, body files, checksums."""
