"""How the organism is measured: cells of generations, the card, the study."""
