"""FUSE requests decoded, handed to `csi/fs`, answered, errors mapped. No I/O of its own and no policy."""
