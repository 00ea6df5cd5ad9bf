"""Who says what a text is worth: marks, rubrics, and a judge that is waited for."""
