"""Kubernetes itself: the API server, the admission webhook that adds sidecars to pods, pods and their events.

`api` is the only module that knows the official client; objects are plain JSON everywhere else. `webhook` decides what
a new pod gets, before it exists; the modules beside it find its sidecars again for the node plugin and tell its users
what happened to them. All of it is synchronous and runs on threads, but for the webhook's server at its edge.
"""
