"""Label maps, records and the colours of masks."""
