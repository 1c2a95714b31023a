"""What type checkers say to programs that use the package."""
