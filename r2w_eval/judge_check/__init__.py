"""How far a judge can be trusted: its evaluator card, from texts that people rated."""
