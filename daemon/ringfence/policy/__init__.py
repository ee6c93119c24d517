"""The policy as a file: checked, written in one canonical form, compared with the database, applied."""
