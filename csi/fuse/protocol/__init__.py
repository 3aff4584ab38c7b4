"""The FUSE wire protocol, 7.31 to 7.45, as bytes and values: what the kernel asks and what it may be answered.

Pure functions over buffers: no descriptor is read here, nothing is decided. `messages` decodes requests, `replies`
encodes answers and notifications, `negotiation` is INIT, `constants` are the numbers. Little-endian machines only, as
the rest of the product.
"""
