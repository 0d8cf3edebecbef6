"""A progress that keeps what it is told, for tests of what the user reads."""

from dpmed.progress import Silent


class Told(Silent):
    """Shows nothing; what was said stands in `said`."""

    def __init__(self):
        self.said = []

    def say(self, message):
        self.said.append(message)
