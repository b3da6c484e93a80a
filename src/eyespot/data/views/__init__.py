"""What is cut out of a picture, and how: views, pixels, strong augmentation, pictures with their maps."""
