"""The ranks of a job: placement, rendezvous, process group, gradient buckets, signals, heartbeat, sharing out work."""
