"""What is distributed: OSTree's objects, repositories and trees."""
