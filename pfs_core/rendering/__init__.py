"""What reports share: text tables, and HTML pages that load nothing from a network (style, parts, drawings)."""
