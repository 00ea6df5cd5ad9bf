"""Tables and pages generated from run folders."""
