"""What may be set?"""
