"""From sample files to a feed that takes each of their records as a row of its own: guessed, then proved."""
