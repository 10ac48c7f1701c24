"""A network with its weights and data in memory, and where it comes from. What is measured on it is in `measure`."""
