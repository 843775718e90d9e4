"""How long models take on the machine that serves them."""
