"""Reference posteriors: draws that methods can be compared with, and what certifies them."""
