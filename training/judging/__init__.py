"""Who says what a text is worth: marks and rubrics."""
