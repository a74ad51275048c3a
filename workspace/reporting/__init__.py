"""What `report` is made of: blocks of a page, charts, example cases; and who gets to see it."""
