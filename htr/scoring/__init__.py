"""How well readings agree with references: errors."""
