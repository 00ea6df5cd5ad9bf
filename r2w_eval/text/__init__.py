"""What texts tell without a judge: words, slop, repetition, length."""
