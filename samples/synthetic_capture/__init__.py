"""A capture without a person: sentences → speech → visemes → frames of a procedural head."""
