"""Signed HTTP to the bucket: credentials, listing, retries, checksums, typed errors. No policy."""
