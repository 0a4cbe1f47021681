"""How the embedded model was made: no run imports this, and no wheel has it."""
