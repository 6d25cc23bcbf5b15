"""Who decides, and how a person drives it: studies, controllers, proxies, reports, the command line."""
