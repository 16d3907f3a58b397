"""A scan on its form: templates, registration by keypoints, fields cut out, print removed, tick boxes."""
