"""The transformer form: trees of readings, training, and the folder that other engines read."""
