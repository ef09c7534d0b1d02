"""The inbox: the only code that touches folders. What is there, whether it is complete, and the renames."""
