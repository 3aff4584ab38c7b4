"""The admission webhook: what a pod's volumes are, what it gets for them, and the server that answers in time."""
