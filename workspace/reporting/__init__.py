"""What `report` is made of: figures, example cases, escaped prose."""
