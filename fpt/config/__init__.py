"""The configuration: which settings there are, how they are typed, and how they are checked."""
