"""The shipped model: named features, hashed words, linear heads."""
