"""How fast the Gaussian rasterizer is, next to its peers and to what the machine could do."""
