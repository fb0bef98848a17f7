"""What an experiment's rows say together: who leaks how much, at what cost, and how sure that is."""
