"""HTML pages that need no network: the style, the parts and the drawings that reports share."""
