"""Ways of choosing a structure. Each is a function of one context and returns one result."""
