"""Stores of findings in a database, for one run or for several."""
