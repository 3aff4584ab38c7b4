"""Programs that write a file and end in every way there is: lines of Python for `python -c`, after BEGINNING.

The file is the first argument. They say "written" when they are to be killed.
"""

from __future__ import annotations

WRITTEN = b"x" * 5000

BEGINNING = f"""
import os, signal, sys, threading, time
path = sys.argv[1]
def write(data=b"x" * {len(WRITTEN)}):
    global file
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    os.set_inheritable(file, True)
    os.write(file, data)
def tell():
    print("written", flush=True)
def wait():
    tell()
    time.sleep(60)
def in_thread(*steps):
    def run():
        for step in steps:
            step()
    thread = threading.Thread(target=run)
    thread.start()
    return thread
def forked(*steps):
    if os.fork() == 0:
        for step in steps:
            step()
        os._exit(0)
def read():
    sys.stdin.readline()
"""

KILLED = {
    "killed": "write(); wait()",
    "opened by a thread": "in_thread(write, wait)",
    "opened by a thread that has ended": "in_thread(write).join(); wait()",
    "with a duplicate of the descriptor": "write(); os.dup(file); os.dup(file); wait()",
    "with the descriptor moved as by a shell": (
        "write(b''); os.dup2(file, 9); os.close(file); os.write(9, b'x'); wait()"
    ),
    "with another program in its place": "write(); tell(); os.execv('/bin/sleep', ['sleep', '60'])",
}

CLOSED = {
    "closed": "write(); os.close(file)",
    "ended without a close": "write(); os._exit(0)",
    "ended with an exit status that looks like a signal": "write(); os._exit(9)",
    "ended by an exception": "write(); raise SystemError",
    "ended by a thread that did not open": "write(); in_thread(lambda: os._exit(0)); time.sleep(60)",
    "ended while another thread had opened": "in_thread(write).join(); in_thread(lambda: time.sleep(60)); os._exit(0)",
    "its opening thread ended, and then it closed": "in_thread(write).join(); os.close(file)",
    "SIGTERM was handled": "signal.signal(15, lambda *_: sys.exit(1)); write(); os.kill(os.getpid(), 15)",
    "another program took the place of its threads": (
        "in_thread(write, lambda: time.sleep(60)); time.sleep(0.2); os.execv('/bin/true', ['true'])"
    ),
    "a child that shares it was killed": (
        "write(); pid = os.fork() or time.sleep(60); os.kill(pid, 9); os.waitpid(pid, 0); os.close(file)"
    ),
    "its killed parent had left it to a child that writes on": (
        "write(b'x' * 1000); forked(read, lambda: os.write(file, b'x' * 4000)); os.kill(os.getpid(), 9)"
    ),
    "its killed parent had left it to a child that only closes": "write(); forked(read); os.kill(os.getpid(), 9)",
}
