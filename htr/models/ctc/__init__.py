"""The CTC reader: reader.py, the network and its greedy reading; loss.py."""
