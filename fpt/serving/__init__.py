"""Who asks, over a network?"""
