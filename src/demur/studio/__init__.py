"""The terminal view, the story of the demo, and the checks behind ``demur doctor``."""
