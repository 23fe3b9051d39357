"""From metrics and incidents to messages: pure evaluation, grouping and rendering."""
