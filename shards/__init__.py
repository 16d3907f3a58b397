"""Archives of samples: what goes where (plan), written once (write), merged (index), verified, read (stream)."""
