"""What goes wrong with a cluster, as tests see it."""


class ClusterFailed(Exception):
    """The cluster, or a command for it, did not do what it should; the message carries what it said, or its logs."""
