"""How the organism is made: what it is taught, its words, its training."""
