"""Front ends: a float model becomes encoders, an integer program and decoders."""
