"""mount(2), mountinfo, unmount, the /dev/fuse descriptor passed to a sidecar over a socket, and where sidecars run."""
