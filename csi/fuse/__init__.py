"""Kernel sessions: decode a request, call the filesystem, encode the reply, map the error. No I/O, no policy."""
