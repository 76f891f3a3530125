"""Thousands of random jobs, each described by its seed, and an oracle for what join may say."""
