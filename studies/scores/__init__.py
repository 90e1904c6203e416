"""Two sets of TRAK scores, compared without a study. See docs/studies/scores.md."""
