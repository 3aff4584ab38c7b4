"""Our own kernel session around `csi/fuse/native`: the requests that need the filesystem, on plain threads."""
