"""WebDataset shards: planned, written once, merged into an index, verified, read and streamed."""
