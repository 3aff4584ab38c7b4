"""An OSS server for development and tests: real protocol, real signatures, files on disk."""
