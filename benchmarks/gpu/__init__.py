"""Everything about a GPU in one run: parity, sanitizers, speed next to its floors, whole frames."""
