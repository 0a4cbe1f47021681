"""What does a person type and see?"""
