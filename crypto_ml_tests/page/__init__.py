"""What a person sees of predictions, and how it is read, prepared and served."""
