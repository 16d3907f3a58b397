"""Launching of jobs and reports of their nodes: submitit, the code snapshot, the node probe, worker status files."""
