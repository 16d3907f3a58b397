"""A certificate, its lines and their text: images, models, decoding and scoring. Knows no tar file, no cluster."""
