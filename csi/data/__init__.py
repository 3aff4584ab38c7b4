"""Blocks: read-ahead, write pipelines, caches and the memory ledger. Knows objects and bytes, no names and no FUSE."""
