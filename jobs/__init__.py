"""What runs on the cluster, one verb a file: python -m jobs VERB --help."""
