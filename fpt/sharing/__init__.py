"""What leaves?"""
