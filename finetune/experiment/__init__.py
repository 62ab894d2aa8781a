"""Everything a training is made of, built from a config."""
