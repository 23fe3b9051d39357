"""From events to correlations and incidents: pure functions over state and batches."""
