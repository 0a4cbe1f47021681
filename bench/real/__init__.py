"""Real models on real data: FLOPs and seconds to vanilla prompt tuning's score, beside PEFT in Trainer."""
