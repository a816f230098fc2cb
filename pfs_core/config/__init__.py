"""What a user can ask for and set: the network, the budget, and the settings of every stage."""
