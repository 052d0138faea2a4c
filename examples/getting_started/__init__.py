"""The smallest workflow that does something: two steps in a row, and a second way to end."""
