"""Two or more runs beside each other: paired tests, pairwise judging, experiments on thinking."""
