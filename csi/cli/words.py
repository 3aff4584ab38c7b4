"""What rooms below say of pods and PersistentVolumes, in the words of `ossfuse mount`, where there are none.

They are shared with the node plugin and speak to its users. This is the one place that knows what the same thing is
called on a plain host; a test finds each of these phrases where it is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from csi.errors import OssFuseError

PHRASES = (
    # the longer ones first
    ("raise fs.jindo.fuse.pod.mem.limit and restart the pod", "mount it again with a larger --memory"),
    ("fs.jindo.fuse.pod.mem.limit", "--memory"),
    ("publish it again (restart the pod)", "mount it again"),
    ("restart the pod to mount it again", "another one is started"),
    ("restart the pod", "mount it again"),
    ("mountOptions", "-o"),
    ("its log, beside the node plugin's,", "the log above"),
    ("the node plugin", "`ossfuse mount`"),
    ("a PersistentVolume is readable by many", "everybody on this machine can read a command line"),
    (
        "put them into a Secret and name it in nodePublishSecretRef",
        "name a file that holds them in --credentials, or put them into OSS_ACCESS_KEY_ID and OSS_ACCESS_KEY_SECRET",
    ),
)


def on_a_host(text: str) -> str:
    """`text` without words that mean nothing on a plain host."""
    for said, meant in PHRASES:
        text = text.replace(said, meant)
    return text


@contextmanager
def errors_on_a_host() -> Iterator[None]:
    """Errors of the project leave this in the words of `ossfuse mount`."""
    try:
        yield
    except OssFuseError as error:
        error.message, error.hint = on_a_host(error.message), on_a_host(error.hint)
        error.args = (error.message,)
        raise
