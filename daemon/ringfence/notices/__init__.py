"""Telling people: the words of a notice, the ways it goes out, and the daemon's part that sends it."""
