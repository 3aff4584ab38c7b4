"""The operations of the OSS API, and which request is which."""
