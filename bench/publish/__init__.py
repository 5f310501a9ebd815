"""The public leaderboard: submissions and their checks, and the page."""
