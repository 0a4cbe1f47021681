"""Devices, engines and processes: where a run computes, how processes start and communicate, and how they end."""
