"""What a run is asked, and what it leaves on disk: plans, rows, other people's answers, Parquet."""
