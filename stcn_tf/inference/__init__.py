"""What a trained model is used for: evaluation, generation, SavedModels."""
