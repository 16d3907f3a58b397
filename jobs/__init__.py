"""Jobs on a cluster, one verb a file: python -m jobs VERB --help."""
