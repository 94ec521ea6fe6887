"""What a run writes for people: logs, its record, the table and the curve."""
