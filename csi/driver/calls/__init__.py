"""What every CSI call goes through: locks, threads, deadlines, error codes, a log without secrets."""
