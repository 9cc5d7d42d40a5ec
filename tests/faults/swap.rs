//! The deploy user moves things about in his own tree while poller works there as root's helper.
