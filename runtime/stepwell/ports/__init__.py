"""What the engine asks of the world, in the words of the domain; each docstring names the races it must win."""
