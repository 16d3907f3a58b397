"""A scan on its form: the template, registration by keypoints, fields cut out, print and rulings removed, tick boxes."""
