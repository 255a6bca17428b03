"""The two training modes of the encoder-based TRM compared: runs, figures, verdicts, a report."""
