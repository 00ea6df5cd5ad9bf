"""The labelled sets and planted flaws as rows of training data."""
