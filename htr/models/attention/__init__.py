"""The attention reader: reader.py, the network, its losses and scores; decoder.py, a transformer."""
