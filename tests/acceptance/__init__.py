"""Real calls through a real Asterisk, judged by the real daemon on a real PostgreSQL."""
