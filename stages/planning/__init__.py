"""What is settled once, before the first update?"""
