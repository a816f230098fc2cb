"""The trained network in the forms that users deploy."""
