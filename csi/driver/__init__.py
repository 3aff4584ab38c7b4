"""The CSI gRPC services: validation, idempotency, locks, error codes."""
