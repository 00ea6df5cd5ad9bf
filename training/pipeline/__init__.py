"""All stages of a recipe, from prompts to a leaderboard, restartable."""
