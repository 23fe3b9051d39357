"""How well the shipped packs find what they are for, and how often they find what is none."""
