"""Weights of single tokens, by what the picture adds to their probability; one method for each file."""
