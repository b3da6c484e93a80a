"""`python -m eyespot` is the `eyespot` command."""

from eyespot.cli.main import main

main()
