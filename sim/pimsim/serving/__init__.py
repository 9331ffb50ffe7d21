"""A service: requests that come, wait, go into steps and leave, on machines that take their time.

A scheduler says which requests go into a replica's next step, a router which replica a request
goes to, a step time how long a step takes; the loop in ``service`` puts them together. How a device
works inside is not known here.
"""
