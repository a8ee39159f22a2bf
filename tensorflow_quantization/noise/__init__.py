"""What quantization changes at the outputs of a network: of all its parts together, or of one alone."""
