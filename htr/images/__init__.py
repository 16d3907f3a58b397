"""Where line images come from: sources (table, ALTO, PAGE), the cut-out line, simulated certificates, augmentation."""
