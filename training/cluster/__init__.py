"""The same training by verl on Ray."""
