"""The long-lived side: workers, the template process they fork work-horses from, presence."""
