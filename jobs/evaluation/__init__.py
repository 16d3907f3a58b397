"""An evaluation: what is counted a line, sums, metrics and their files, comparison of two runs, texts, alignments."""
