"""What an LLM judge says about a text: marks per criterion, and rubrics."""
