"""Words, sentences, categories and claims: what texts are made of, read without a model."""
