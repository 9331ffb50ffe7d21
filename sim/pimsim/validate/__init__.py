"""Held against references: every timing model beside independent simulators and papers."""
