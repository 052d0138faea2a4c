"""Small programs that show one thing each, all of them run by their tests."""
