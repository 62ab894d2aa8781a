"""Find a learning rate: sweep it, read the curve, and race what the curve suggests."""
