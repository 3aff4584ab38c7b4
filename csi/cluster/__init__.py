"""Kubernetes itself: the admission webhook that adds the sidecar to a pod, events, token and secret projection.

Nothing lives here before the issue that brings the sidecar into the pod; local sidecars are processes
(`csi/handover/process.py`).
"""
