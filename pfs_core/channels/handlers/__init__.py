"""What each kind of operation does to the channels that pass through it."""
