"""What is learned: prompts, and how they enter the frozen model."""
