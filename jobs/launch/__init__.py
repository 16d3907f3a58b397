"""How a job is started and what its nodes report: submitit, the code snapshot, the node probe, worker status files."""
