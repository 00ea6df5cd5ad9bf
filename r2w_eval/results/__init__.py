"""From records to numbers and pages; asks nobody."""
