"""PyTorch on the same data engine, without a mount. Nothing lives here before the issue that brings it."""
