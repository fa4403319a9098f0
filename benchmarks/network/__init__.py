"""What the network carries: views, models, updates and broadcasts, how soon and to how many."""
