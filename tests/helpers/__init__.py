"""What tests share: real programs and what they need; no test is here."""
