"""The networks of the readers: registry (by name), encoder, layers, ctc/, attention/."""
