"""The agent: receives an image on one machine, proves every chunk of it, and writes it in place."""
