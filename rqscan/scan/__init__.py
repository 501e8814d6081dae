"""What a scan is: targets and ports, what may be touched, the kinds, the plan, and its running."""
