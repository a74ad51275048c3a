"""What `indexing` is made of: cases, items from a folder, splits, look-alikes, checks, published forms."""
