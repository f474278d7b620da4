"""Heads to learn from: a procedural parametric head and the renderer of its meshes."""
