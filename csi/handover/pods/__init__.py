"""Publishing volumes whose sidecar is a container of the pod that uses them (kubelet starts it, not we)."""
