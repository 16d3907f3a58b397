"""Scaling over GPUs: measured results and a cost model that predicts."""
