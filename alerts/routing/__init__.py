"""Which destinations an alert goes to, and when its notifications are held: routes, time intervals, inhibition."""
